"""Labelled images of any origin as one kind of data: a dataset by name, a folder of images, a CSV, an .npz file."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from pathlib import Path
from types import ModuleType

from training.datasets import cifar10, csv_table, fashion_mnist, folder, npz
from training.datasets.base import DataError, Preprocessing, Source, Split, TrainingData, png
from training.datasets.labels import is_utf8, readable

__all__ = [
    "DataError",
    "Preprocessing",
    "Source",
    "Split",
    "TrainingData",
    "check_exists",
    "default_name",
    "is_utf8",
    "load_test",
    "load_training",
    "names",
    "place",
    "png",
    "split_settings",
]

_NAMED = {"fashion_mnist": fashion_mnist, "cifar10": cifar10}
_FILES = {**dict.fromkeys(csv_table.SUFFIXES, csv_table), ".npz": npz}
_FASHION_MNIST = Source()
_SIMILAR = 0.5  # of names, from 0 to 1, so that one is offered for the other


def names() -> tuple[str, ...]:
    """The datasets that are known by name; everything else is a path (for a folder called so, ./NAME)."""
    return tuple(_NAMED)


def load_training(source: Source, limit: int | None = None) -> TrainingData:
    """Loads what trains and what validates.

    Of the test set only hashes are looked at, to drop training images that repeat one of its images.

    Args:
        source: which dataset, and how to read it.
        limit: at most so many training and validation images.

    Returns:
        Images uint8 (N, H, W, C) with C = 1 or 3, labels int64 (N,), the same for the same source. `facts` holds
        `source`, `sha256`, `counts` (images a split and class), `dropped_duplicates` and `skipped`.

    Raises:
        DataError: an unknown name, or data that are missing or not what they should be.

    Example:
        >>> load_training(Source("photos/", image_size=160)).classes
        ('cat', 'dog')
    """
    return _loader(source).load_training(source, limit)


def load_test(source: Source = _FASHION_MNIST) -> Split:
    """Loads the test images, labelled as `load_training` labels. To be read once, at the end.

    Raises:
        DataError: an unknown name, or data that are missing or not what they should be.
    """
    return _loader(source).load_test(source)


def split_settings(dataset: str) -> tuple[str, ...]:
    """The settings that decide which of its images are held out, as far as it has no such split itself."""
    if dataset in _NAMED:
        return _NAMED[dataset].SPLIT_SETTINGS
    return "split_seed", "validation_fraction", "test_fraction"


def place(dataset: str) -> str:
    """What tells a dataset from others: its name, or the absolute path of where it lies."""
    return dataset if dataset in _NAMED else os.path.realpath(os.path.expanduser(dataset))


def check_exists(source: Source) -> None:
    """Raises DataError unless the dataset is a known name or a path, in UTF-8, of a kind that can be read."""
    _loader(source)


def default_name(source: Source) -> str:
    """The name of a model that is trained on this dataset: the dataset's, or the path's without what is no letter."""
    if source.dataset in _NAMED:
        return source.dataset
    stem = Path(os.path.abspath(Path(source.dataset).expanduser())).name
    stem = re.sub(r"(\.csv|\.csv\.gz|\.npz)$", "", stem, flags=re.IGNORECASE)
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    return name if name[:1].isalpha() else f"model_{name}".rstrip("_")


def _loader(source: Source) -> ModuleType:
    if source.dataset in _NAMED:
        return _NAMED[source.dataset]
    if not is_utf8(source.dataset):  # the manifest, which is UTF-8, names it
        raise DataError(f"dataset {readable(source.dataset)}: expected a path in UTF-8; rename the file or folder")
    path = Path(source.dataset).expanduser()
    if path.is_dir():
        return csv_table if csv_table.is_pair(path) else folder
    suffix = next((suffix for suffix in _FILES if path.name.lower().endswith(suffix)), None)
    if path.is_file() and suffix:
        return _FILES[suffix]
    problem = "is none of these files" if path.is_file() else "is neither known nor a path that exists"
    raise DataError(
        f"dataset {source.dataset!r} {problem}{_nearest(source.dataset, path)}; expected one of {', '.join(_NAMED)}, "
        f"or the path of a folder with a folder of images a class, of a {', '.join(_FILES)} file, or of a folder with "
        "a training and a test CSV"
    )


def _nearest(name: str, path: Path) -> str:
    """The dataset or the neighbour in the same folder that is called almost so."""
    try:
        beside = sorted(str(path.parent / entry) for entry in os.listdir(path.parent))
    except OSError:  # no such folder
        beside = []
    near = difflib.get_close_matches(name, [*_NAMED, *beside], n=1, cutoff=_SIMILAR)
    return f" (did you mean {near[0]!r}?)" if near and near[0] != str(path) else ""
