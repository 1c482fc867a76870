"""What the README says, done as a new user would: its commands run, its figures are the manifest's.

Runs before test_stack_versions.py, which publishes a version that knows nothing.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PREDICTION = README[README.index("## A first prediction") : README.index("## What the model offers")]
MANIFEST = ROOT / "serving/models/fashion_mnist/1/assets.extra/manifest.json"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


@pytest.fixture
def folder(stack, tmp_path) -> Path:
    """A folder as after `make up`, with the stack's credentials in .env."""
    for name in ("ui", "serving", ".venv"):
        if (ROOT / name).exists():
            (tmp_path / name).symlink_to(ROOT / name)
    if not (tmp_path / ".venv").exists():
        (tmp_path / ".venv/bin").mkdir(parents=True)
        (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    (tmp_path / ".env").write_text(f"GATEWAY_USER={stack.user}\nGATEWAY_PASSWORD={stack.password}\n")
    return tmp_path


def run(stack, folder: Path, command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(folder), "GATEWAY_PORT": str(stack.port)} | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def here(stack, text: str) -> str:
    return text.replace("http://127.0.0.1:8080", stack.url).replace('"vitrine"', f'"{stack.user}"')


def test_shell_commands(stack, folder):
    script = "set -e\n" + "\n".join(blocks(PREDICTION, "bash"))
    output = run(stack, folder, ["bash", "-c", here(stack, script)])
    assert '"class_name"' in output
    assert "Pullover" in output
    assert (folder / "overlay.png").stat().st_size > 1000


@pytest.mark.parametrize("number", range(len(blocks(PREDICTION, "python"))))
def test_python_snippets(stack, folder, number):
    (folder / "snippet.py").write_text(here(stack, blocks(PREDICTION, "python")[number]))
    output = run(stack, folder, [".venv/bin/python", "snippet.py"], GATEWAY_PASSWORD=stack.password)
    assert "Pullover" in output


def test_dry_run_of_publishing(tmp_path):
    """The training commands themselves are run, with the smoke preset, by tests/stack/test_stack_versions.py."""
    shipped = str(MANIFEST.parents[1])
    command = [sys.executable, "-m", "training.publish", shipped, "--dry-run", "--base-path", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "would publish" in done.stdout
    assert not any(tmp_path.iterdir())


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"make ([a-z-]+)", README)) - {"makes"} <= targets | {"and", "is"}


def test_figures_are_the_manifests():
    test = json.loads(MANIFEST.read_text(encoding="utf-8"))["metrics"]["test"]
    low, high = test["accuracy_wilson_95"]
    assert f"**{test['accuracy']:.2%}**".replace("%", " %") in README
    assert f"{low:.2%} to {high:.2%}".replace("%", " %") in README
