"""`pip install .`: the client library and its commands, apart from the checkout."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]


def test_the_client_installs_apart_from_the_checkout(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    shutil.copy(CHECKOUT / "pyproject.toml", source)
    shutil.copytree(
        CHECKOUT / "serving", source / "serving", ignore=shutil.ignore_patterns("models", "embedded", "__pycache__")
    )
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--target", target, source], check=True)
    program = (
        "import sys, serving.client.grpc, serving.cli;"
        "print(serving.client.__file__, *sorted({'tensorflow', 'keras', 'tensorflow_serving'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(target)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(target / "serving/client/__init__.py")]


def test_the_client_alone_says_what_promoting_needs():
    program = (
        "import sys; sys.modules['tensorflow_serving'] = None\n"
        "from serving.cli import main; sys.exit(main(['promote', '1']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: promote needs a checkout with its requirements installed, and tensorflow_serving"
    )
    assert len(done.stderr.splitlines()) == 1


def test_its_needs_are_those_of_requirements_txt():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["grpc"]]
    assert set(needed) <= set((CHECKOUT / "requirements.txt").read_text().splitlines())
