"""The Makefile's face: help, and what it says when this machine's Python will not do."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {
    "up",
    "test",
    "test-serving",
    "fuzz",
    "train",
    "evaluate",
    "bench",
    "bench-training",
    "lint",
    "docker-up",
    "clean",
    "help",
}


def test_help_lists_every_target():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(re.findall(r"^  make (\S+) +\S", done.stdout, re.M)) == TARGETS


@pytest.mark.parametrize(("version", "shown"), [((3, 9), "3.9"), ((3, 14), "3.14")])
def test_a_python_that_will_not_do_is_refused_in_one_line(tmp_path, version, shown):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").write_text("")
    python = tmp_path / "python-of-old"
    prelude = f"import sys; sys.version_info = {(*version, 0)!r}; exec(sys.argv[1])"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{prelude}" "$2"\n')
    python.chmod(0o755)
    done = subprocess.run(["make", "up", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(errors) == 1
    assert f"3.11 to 3.13 is needed, {python} is {shown}" in errors[0]
    assert not (tmp_path / ".venv").exists()
