"""Fetches what the tests use beyond PyPI: Chromium and the Fashion-MNIST files, from Debian where we are root.

Elsewhere it says what is missing; the tests that need it then say so in one line each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "ui"))
from browser_steps import find_chromium  # noqa: E402 - only now is it found

PACKAGES = {
    "chromium": find_chromium,
    "dataset-fashion-mnist": lambda: (
        bool(os.environ.get("FASHION_MNIST_DIR")) or Path("/usr/share/datasets/fashion-mnist").is_dir()
    ),
}


def main() -> None:
    missing = [name for name, is_here in PACKAGES.items() if not is_here()]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print(f"not here and not installed (that needs root on Debian): {', '.join(missing)}")
        return
    print(f"installing {', '.join(missing)}", flush=True)
    quiet = {"stdout": subprocess.DEVNULL, "env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}}
    subprocess.run(["apt-get", "update", "-qq"], check=True, **quiet)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True, **quiet)


if __name__ == "__main__":
    main()
