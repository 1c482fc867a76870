"""The version directories under a base path."""

from __future__ import annotations

import difflib
from pathlib import Path

MODEL_FILE = Path("assets.extra") / "model.keras"  # of a version: the Keras model that it was exported from


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


def version_of(models: Path, name: str, version: int | None) -> Path:
    """The directory of a version, of the newest for None.

    Raises:
        FileNotFoundError: there is no such model or version; the message lists what is there.
    """
    if not (models / name).is_dir():
        there = sorted(path.name for path in models.iterdir() if path.is_dir()) if models.is_dir() else []
        near = difflib.get_close_matches(name, there, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise FileNotFoundError(f"{models} has no model {name!r}{hint}; there are: {', '.join(there) or 'none'}")
    return newest_or(models / name, version)
