"""Fetches what the tests use beyond PyPI from Debian: Chromium and load generators, where we are root, and the
Fashion-MNIST files.

Elsewhere it says what is missing; the tests that need a program then say so in one line each, and the dataset is
downloaded where Keras' copy can be reached.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "ui"))
from browser_steps import find_chromium  # noqa: E402 - only now is it found

DEBIAN_DATASET = Path("/usr/share/datasets/fashion-mnist")
OWN_DATASET = Path(__file__).resolve().parents[1] / ".venv" / "fashion-mnist"  # conftest.py points the tests there
DATASET = "dataset-fashion-mnist"
LOAD_GENERATORS = {"wrk": "wrk", "h2load": "nghttp2-client"}


def main() -> None:
    missing = [] if find_chromium() else ["chromium"]
    missing += [package for tool, package in LOAD_GENERATORS.items() if not shutil.which(tool)]
    if not (os.environ.get("FASHION_MNIST_DIR") or DEBIAN_DATASET.is_dir() or OWN_DATASET.is_dir()):
        missing.append(DATASET)
    if not missing:
        return
    if not shutil.which("apt-get"):
        print(f"not here, and without Debian's apt-get not installed: {', '.join(missing)}")
        return
    try:
        fetch(missing)
    except subprocess.CalledProcessError as error:
        print(f"not fetched: {', '.join(missing)} ({error})")


def fetch(missing: list[str]) -> None:
    if os.geteuid() == 0:
        print(f"installing {', '.join(missing)}", flush=True)
        apt_get("update")
        apt_get("install", "-y", "--no-install-recommends", *missing)
        return
    programs = [package for package in missing if package != DATASET]
    if programs:
        print(f"not here, and not installed without root: {', '.join(programs)}")
    if DATASET in missing:
        unpack_dataset()


def unpack_dataset() -> None:
    """Takes the files out of Debian's package, which needs no root."""
    print(f"unpacking {DATASET} to {OWN_DATASET}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        options = (f"-oDir::State={scratch}", f"-oDir::Cache={scratch}")
        (Path(scratch) / "lists/partial").mkdir(parents=True)
        apt_get(*options, "update")
        apt_get(*options, "download", DATASET, cwd=scratch)
        package = next(Path(scratch).glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(package), scratch], check=True)
        shutil.move(Path(scratch) / DEBIAN_DATASET.relative_to("/"), OWN_DATASET)


def apt_get(*arguments: str, cwd: str | None = None) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "-qq", *arguments], check=True, cwd=cwd, env=environment, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
