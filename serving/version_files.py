"""The versions of a model on disk: which there are, whether they are as their manifests say, removing old ones."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.release_errors import NoManifest, NoVersion

MANIFEST = Path("assets.extra") / "manifest.json"
OK, CHANGED, MISSING, UNLISTED = "ok", "changed", "missing", "not in the manifest"
_REMOVING = ".removing-"


@dataclass(frozen=True)
class FileCheck:
    """One file of a version: its path in the folder, and `ok`, `changed`, `missing` or `not in the manifest`."""

    file: str
    state: str


def numbers(folder: Path) -> list[int]:
    """The versions in a model's folder, ascending: folders with a number for a name that hold a saved_model.pb."""
    return sorted(version for version, path in _folders(folder).items() if (path / "saved_model.pb").is_file())


def version_folder(folder: Path, version: int) -> Path:
    """The folder of one version.

    Raises:
        NoVersion: it is not there.
    """
    found = _folders(folder).get(version)
    if found is None:
        there = ", ".join(map(str, numbers(folder))) or "none"
        raise NoVersion(f"no version {version} in {folder}; there are: {there}")
    return found


def _folders(folder: Path) -> dict[int, Path]:
    """Folders by the number that is their name; a server takes 007 for 7."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return {int(path.name): path for path in paths if path.name.isascii() and path.name.isdecimal() and path.is_dir()}


def manifest(version_dir: Path) -> dict[str, Any]:
    """A version's manifest.

    Raises:
        NoManifest: it is missing, or cannot be read as one.
    """
    path = version_dir / MANIFEST
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["files"].items()
    except FileNotFoundError:
        raise NoManifest(f"{path} is missing; expected one as training.export writes it") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoManifest(f"{path} cannot be read as a manifest ({type(error).__name__}: {error})") from error
    return content


def check(version_dir: Path) -> list[FileCheck]:
    """Hold the SHA-256 of every file against the manifest, which alone has none.

    Returns:
        Every file of the folder and of the manifest, by name.

    Raises:
        NoManifest: there is nothing to compare with.
    """
    expected = manifest(version_dir)["files"]
    present = {path.relative_to(version_dir).as_posix(): path for path in version_dir.rglob("*") if path.is_file()}
    present.pop(MANIFEST.as_posix(), None)
    return [FileCheck(name, _state(present.get(name), expected.get(name))) for name in sorted({*present, *expected})]


def damage(version_dir: Path) -> str:
    """The files that are not as the manifest says, with what they are instead; empty where all are.

    Raises:
        NoManifest: there is nothing to compare with.
    """
    return ", ".join(f"{one.file} ({one.state})" for one in check(version_dir) if one.state != OK)


def _state(path: Path | None, expected: str | None) -> str:
    if path is None:
        return MISSING
    if expected is None:
        return UNLISTED
    with path.open("rb") as file:
        return OK if hashlib.file_digest(file, "sha256").hexdigest() == expected else CHANGED


def remove_old(folder: Path, keep: int, spared: Collection[int]) -> list[int]:
    """Delete the oldest versions.

    Renamed to a name that no server reads as a version, and only then deleted: nobody sees half of one.

    Args:
        folder: of the model.
        keep: how many of the newest stay.
        spared: versions that stay whatever their age.

    Returns:
        The versions that were deleted.

    Raises:
        OSError: one could not be deleted.
    """
    old = [version for version in numbers(folder)[:-keep] if version not in spared]
    for version in old:
        version_folder(folder, version).rename(folder / f"{_REMOVING}{version}")
    for left in folder.glob(f"{_REMOVING}*"):  # those of a run that was killed, too
        shutil.rmtree(left)
    return old
