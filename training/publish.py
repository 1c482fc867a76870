"""Publishes an exported version directory: written beside the others, synced, renamed to the next integer.

python -m training.publish runs/best/export                # -> serving/models/fashion_mnist/<N>
python -m training.publish runs/best/export --dry-run      # says what would happen
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from training import manifest
from training.settings import MODELS


class PublishError(ValueError):
    """A directory that is no intact version."""


def publish(source: Path, base_path: Path, *, dry_run: bool = False) -> int:
    """Copies the version directory `source` to the next free integer under `base_path`.

    A server that polls base_path sees all of the version or nothing of it: it is copied under a name that is no
    integer, synced to disk, and renamed.

    Returns:
        The version's number.

    Raises:
        PublishError: `source` lacks its manifest, or a file differs from the hash in it.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    try:
        content = manifest.read(source)
        expected = content["files"]
    except (FileNotFoundError, json.JSONDecodeError, KeyError) as error:
        raise PublishError(f"cannot publish {source}: no manifest that can be read ({error})") from error
    found = manifest.hashes(source)
    if found != expected:
        changed = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise PublishError(f"cannot publish {source}: not as its manifest says: {', '.join(changed)}; export it again")
    if dry_run:
        return next_version(base_path)
    base_path.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".publishing-", dir=base_path))
    try:
        staging.chmod(0o755)  # mkdtemp's 0700 would lock out a server that runs as another user
        shutil.copytree(source, staging, dirs_exist_ok=True)
        if manifest.hashes(staging) != expected:
            raise PublishError(f"cannot publish {source}: it changed while it was copied; publish it again")
        while True:
            version = next_version(base_path)
            manifest.write(staging, content | {"version": version})
            _sync(staging)
            try:
                # fails on a directory that holds something: another publisher took the number meanwhile
                staging.rename(base_path / str(version))
            except OSError:
                if not (base_path / str(version)).exists():
                    raise
                continue
            _sync_directory(base_path)
            return version
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _name(source: Path) -> str:
    try:
        return manifest.read(source)["name"]
    except (json.JSONDecodeError, KeyError) as error:
        raise PublishError(f"cannot publish {source}: no manifest that can be read ({error})") from error


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


def _sync(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_dir():
            _sync_directory(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_directory(directory)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.publish", description=__doc__.splitlines()[0])
    parser.add_argument(
        "source", type=Path, nargs="?", default=Path("runs/best/export"), help="default: runs/best/export"
    )
    parser.add_argument("--base-path", type=Path, help="default: serving/models/<name in the manifest>")
    parser.add_argument("--dry-run", action="store_true", help="only say what would happen")
    arguments = parser.parse_args(argv)
    try:
        base_path = arguments.base_path or MODELS / _name(arguments.source)
        version = publish(arguments.source, base_path, dry_run=arguments.dry_run)
        size = sum(p.stat().st_size for p in arguments.source.rglob("*") if p.is_file())
        verb = "would publish" if arguments.dry_run else "published"
        print(f"{verb} {arguments.source} ({size / 1e6:.1f} MB) as {base_path / str(version)}")
        if arguments.dry_run:
            print(f"versions there now: {', '.join(map(str, versions(base_path))) or 'none'}; the highest is served")
    except (PublishError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
