"""The version directories under a base path."""

from __future__ import annotations

from pathlib import Path


def next_version(base_path: Path) -> int:
    """One more than the highest version there; 1 if there is none."""
    # a file of that name takes the number too
    names = [path.name for path in base_path.iterdir()] if base_path.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=0) + 1


def versions(base_path: Path) -> list[int]:
    """The version numbers under `base_path`, ascending."""
    if not base_path.is_dir():
        return []
    return sorted(int(path.name) for path in base_path.iterdir() if path.is_dir() and path.name.isdecimal())


def newest_or(base_path: Path, version: int | None) -> Path:
    """The directory of `version`, of the newest for None.

    Raises:
        FileNotFoundError: it is not there; the message lists what is.
    """
    found = versions(base_path)
    if version not in found and (version is not None or not found):
        there = ", ".join(map(str, found)) or "none"
        raise FileNotFoundError(f"{base_path} has no version {version or ''}; there are: {there}")
    return base_path / str(version or found[-1])
