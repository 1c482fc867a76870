"""Publishes an exported version directory: written beside the others, synced, renamed to the next integer.

python -m training.publish runs/best/export                # -> serving/models/fashion_mnist/<N>
python -m training.publish runs/best/export --dry-run      # says what would happen
python -m training.publish runs/best/export --force "the old one has to go"   # whatever the gate says
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from training import manifest
from training.datasets import DataError, Source
from training.gate import GateError, add_gate_arguments, judge
from training.settings import MODELS
from training.versions import next_version, versions

_STAGING = ".publishing-"  # no integer, so no version to any reader


class PublishError(ValueError):
    """A directory that is no intact version."""


def publish(source: Path, base_path: Path, *, gate: Mapping[str, Any] | None = None, dry_run: bool = False) -> int:
    """Copies the version directory `source` to the next free integer under `base_path`.

    A server that polls base_path sees all of the version or nothing of it: it is copied under a name that is no
    integer, synced to disk, and renamed.

    Args:
        source: an export, or a version that was published elsewhere.
        base_path: of the model.
        gate: why it is published (training.gate); goes into the manifest.
        dry_run: only check, and say which number it would get.

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
    for folder in [one for one in (*base_path.parents[::-1], base_path) if not one.exists()]:
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
    with _locked(base_path):  # so that nobody takes for abandoned what is just being made
        _remove_abandoned(base_path)
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=base_path))
        lock = _lock(staging)  # held while this process lives
    try:
        shutil.copytree(source, staging, dirs_exist_ok=True)
        if manifest.hashes(staging) != expected:
            raise PublishError(f"cannot publish {source}: it changed while it was copied; publish it again")
        while True:
            version = next_version(base_path)
            manifest.write(staging, content | {"version": version} | ({} if gate is None else {"gate": dict(gate)}))
            _open_to_readers(staging)
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
        os.close(lock)


def _open_to_readers(directory: Path) -> None:
    """For a server that runs as another user, whatever the umask of the training was."""
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _remove_abandoned(base_path: Path) -> None:
    """What publishers that were killed have left behind."""
    for staging in base_path.glob(f"{_STAGING}*"):
        try:
            with _locked(staging, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(staging, ignore_errors=True)
        except OSError:  # its publisher is at work, or done with it meanwhile
            continue


def _lock(directory: Path, how: int = fcntl.LOCK_EX) -> int:
    """A descriptor that holds a lock on a directory until it is closed."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _locked(directory: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    descriptor = _lock(directory, how)
    try:
        yield
    finally:
        os.close(descriptor)


def _name(source: Path) -> str:
    try:
        return manifest.read(source)["name"]
    except (json.JSONDecodeError, KeyError) as error:
        raise PublishError(f"cannot publish {source}: no manifest that can be read ({error})") from error


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
    add_gate_arguments(parser)
    parser.add_argument("--dataset", help="name or path for the gate (default: what the version was trained on)")
    parser.add_argument("--data-dir", help="of a dataset by name: the directory of its files")
    parser.add_argument("--dry-run", action="store_true", help="only say what would happen")
    arguments = parser.parse_args(argv)
    source = arguments.source
    try:
        base_path = arguments.base_path or MODELS / _name(source)
        publish(source, base_path, dry_run=True)  # intact, before anything takes time

        @functools.cache
        def data() -> Source:
            return manifest.source_of(source, arguments.dataset, arguments.data_dir)

        gate = judge(
            source, base_path, lambda version_dir: manifest.load_test_at_its_size(version_dir, data()),
            tolerance=arguments.tolerance, force=arguments.force,
        )  # fmt: skip
        version = publish(source, base_path, gate=gate, dry_run=arguments.dry_run)
        size = sum(p.stat().st_size for p in source.rglob("*") if p.is_file())
        verb = "would publish" if arguments.dry_run else "published"
        print(f"{verb} {source} ({size / 1e6:.1f} MB) as {base_path / str(version)}: {gate['reason']}")
        if arguments.dry_run:
            print(f"versions there now: {', '.join(map(str, versions(base_path))) or 'none'}")
    except (PublishError, GateError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
