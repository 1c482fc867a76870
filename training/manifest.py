"""The manifest of a version directory: what it is, how good, and the SHA-256 of every file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from training.datasets import DataError, Source, Split, load_test, load_training

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


def trained_on(version_dir: Path, dataset: str | None = None, data_dir: str | None = None) -> Source:
    """Where the test images of a version are: its dataset, split as it was for training.

    Args:
        dataset: a name or path instead of the one in the manifest.

    Raises:
        FileNotFoundError: no manifest.
    """
    training = read(version_dir)["training"]
    names = {field.name for field in dataclasses.fields(Source)}
    known = {name: value for name, value in training.items() if name in names and value is not None}
    if "class_names" in known:
        known["class_names"] = tuple(known["class_names"])
    given = {name: value for name, value in (("dataset", dataset), ("data_dir", data_dir)) if value is not None}
    return Source(**(known | given))


def load_test_of(version_dir: Path, source: Source) -> Split:
    """Loads the test images of a version's data.

    Raises:
        DataError: they cannot be had, or have another shape than those that the version was trained on.
    """
    described = read(version_dir)
    test = load_test(source)
    size, channels = described["view"]["size"], described["view"]["channels"]
    height, width, found = test.images.shape[1:]
    if (height, width, found) != (size, size, channels):
        raise DataError(
            f"the images of {source.dataset} have the shape {height}x{width}x{found} (height, width, channels); "
            f"expected {size}x{size}x{channels}, as those that {version_dir} was trained on"
        )
    return test


def load_test_at_its_size(version_dir: Path, source: Source) -> Split:
    """Loads the test images of `source` as a version sees them: photos are read at the size that it was trained at.

    Raises:
        DataError: they cannot be had, or have another shape than those that the version was trained on.
        FileNotFoundError: no manifest.
    """
    size = read(version_dir)["view"]["size"]
    return load_test_of(version_dir, dataclasses.replace(source, image_size=size))


def source_of(version_dir: Path, dataset: str | None, data_dir: str | None) -> Source:
    """As `trained_on`; a dataset that is given instead has to have the version's classes.

    Raises:
        DataError: it has others, or cannot be had.
        FileNotFoundError: no manifest.
    """
    source = trained_on(version_dir, dataset, data_dir)
    if dataset is not None:
        found = list(load_training(source).classes)
        check_classes(read(version_dir)["classes"], found, version_dir, f"the dataset {dataset}")
    return source


def check_classes(classes: list[str], found: list[str], version_dir: Path, whose: str) -> None:
    """Whether something has the classes of a version, in their order.

    Raises:
        DataError: it does not; the message says which are missing and which unknown.
    """
    if classes == found:
        return
    missing, foreign = [one for one in classes if one not in found], [one for one in found if one not in classes]
    raise DataError(
        f"{whose} has {len(found)} classes ({_first(found)}); expected the {len(classes)} of {version_dir}: "
        f"{_first(classes)}"
        + (f". Missing: {_first(missing)}" * bool(missing))
        + (f". Unknown: {_first(foreign)}" * bool(foreign))
        + (". They are the same in another order" * (not missing and not foreign))
    )


def _first(names: list[str], count: int = 10) -> str:
    return ", ".join(names[:count]) + ", …" * (len(names) > count)
