"""The manifest of a version directory: what it is, how good, and the SHA-256 of every file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

FILE = Path("assets.extra") / "manifest.json"


def read(version_dir: Path) -> dict[str, Any]:
    """Reads the manifest.

    Raises:
        FileNotFoundError: the directory has none, so it is no version of ours.
    """
    path = version_dir / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: {version_dir} is not a version directory written by training.export"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def write(version_dir: Path, content: dict[str, Any]) -> None:
    """Writes the manifest, with the hash of every file that is there now; itself it cannot hold."""
    path = version_dir / FILE
    content = content | {"files": hashes(version_dir)}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def hashes(version_dir: Path) -> dict[str, str]:
    """SHA-256 by relative path of every file but the manifest."""
    files = sorted(p for p in version_dir.rglob("*") if p.is_file() and p.relative_to(version_dir) != FILE)
    return {p.relative_to(version_dir).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
