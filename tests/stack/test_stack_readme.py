"""What the README says, done as a new user would: its commands run, its figures are the manifest's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from PIL import Image
from shipped import ROOT, SHIPPED
from stack_helpers import bare_environment

README = (ROOT / "README.md").read_text(encoding="utf-8")
MANIFEST = SHIPPED / "assets.extra/manifest.json"
TAKE_PASSWORD_OVER = "set -eo pipefail; set -a; . ./.env; set +a\n"
# Every other line of every bash block is run, a new one too.
RUN_ELSEWHERE = {
    "make up": "tests/conftest.py starts the stack with it",
    "make test": "runs this test",
    "make train": "minutes to hours; test_stack_versions.py trains with the preset smoke",
    "make evaluate": "20 minutes; tests/training/evaluation",
    "make docker-up": "needs Docker; tests/docker",
    ".venv/bin/python -m serving (promote|rollback|prune)": "test_stack_promotion.py, over versions of its own",
}

pytestmark = pytest.mark.usefixtures("own_versions")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def shell(stack, script: str) -> str:
    """Runs a script in the checkout whose `make up` is running; returns what it printed."""
    here = script.replace("http://127.0.0.1:8080", stack.url)
    command = ["bash", "-c", TAKE_PASSWORD_OVER + here]
    done = subprocess.run(
        command, cwd=stack.checkout, env=bare_environment(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_shell_commands(stack):
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    script = "\n".join(line for line in lines if not re.match("|".join(rf"{one}\b" for one in RUN_ELSEWHERE), line))
    Image.open(ROOT / "ui/samples/00001.png").convert("RGB").save(stack.checkout / "photo.jpg")
    for run in set(re.findall(r"runs/\w+/export", script)):  # as `make train` leaves it
        shutil.copytree(SHIPPED, stack.checkout / run)
    output = shell(stack, script)
    assert '"class_name"' in output
    assert "Pullover" in output
    assert (stack.checkout / "overlay.png").stat().st_size > 1000


@pytest.mark.parametrize("snippet", blocks("python"))
def test_python_snippets(stack, snippet):
    (stack.checkout / "snippet.py").write_text(snippet.replace("http://127.0.0.1:8080", stack.url))
    assert "Pullover" in shell(stack, ".venv/bin/python snippet.py")


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"make ([a-z-]+)", README)) - {"makes"} <= targets | {"and", "is"}


def test_figures_are_the_manifests():
    test = json.loads(MANIFEST.read_text(encoding="utf-8"))["metrics"]["test"]
    low, high = test["accuracy_wilson_95"]
    assert f"**{test['accuracy']:.2%}**".replace("%", " %") in README
    assert f"{low:.2%} to {high:.2%}".replace("%", " %") in README
