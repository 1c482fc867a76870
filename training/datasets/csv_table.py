"""A CSV of grey images as arrays: one that is split, or a folder with one to train and one to test."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.datasets import digests
from training.datasets.base import DataError, Source, Split, TrainingData, light_on_dark
from training.datasets.csv_lines import Table, read
from training.datasets.labels import Classes, classes_of
from training.datasets.splitting import Parts, content_keys, split, training_data

SUFFIXES = (".csv", ".csv.gz")


def is_pair(folder: Path) -> bool:
    """Whether a folder is one of CSVs, not of images: it holds some, and no folders."""
    return bool(_csvs(folder)) and not any(
        entry.is_dir() for entry in folder.iterdir() if not entry.name.startswith(".")
    )


def load_training(source: Source, limit: int | None = None) -> TrainingData:
    """Loads what trains and validates, split class by class. The test is only hashed, and its labels are checked.

    Raises:
        DataError: the message names the line, from 1, and the column.
    """
    given = Path(source.dataset).expanduser()
    train_path, test_path = _paths(given)
    table = read(train_path)
    classes = classes_of(table.labels, source.class_names, str(train_path))
    labels = classes.number(table.labels, table.place)
    parts = _split(table, labels, classes, source, with_test=test_path is None)
    test_images = table.images[parts.test] if test_path is None else _test(test_path, classes).images
    if test_images.shape[1:] != table.images.shape[1:]:
        sizes = " and ".join(f"{images.shape[1]}x{images.shape[2]}" for images in (table.images, test_images))
        raise DataError(f"{given}: the training and test images have {sizes} pixels; expected one size")
    sha256 = digests.of_file(train_path)
    if test_path is not None:
        sha256 = digests.of_many({train_path.name: sha256, test_path.name: digests.of_file(test_path)})
    return training_data(
        Split(table.images[parts.train], labels[parts.train]),
        Split(table.images[parts.validation], labels[parts.validation]),
        test_images,
        classes=classes.names,
        preprocessing="fashion_mnist",
        origin=given.resolve().name,
        sha256=sha256,
        limit=limit,
    )


def load_test(source: Source) -> Split:
    """Loads the test images: the part split off a CSV, or the test CSV of a folder.

    Raises:
        DataError: the message names the line, from 1, and the column.
    """
    train_path, test_path = _paths(Path(source.dataset).expanduser())
    table = read(train_path, labels_only=test_path is not None)
    classes = classes_of(table.labels, source.class_names, str(train_path))
    if test_path is not None:
        test = _test(test_path, classes)
        return Split(light_on_dark(test.images), test.labels)
    labels = classes.number(table.labels, table.place)
    positions = _split(table, labels, classes, source, with_test=True).test
    return Split(light_on_dark(table.images[positions]), labels[positions])


def _test(path: Path, classes: Classes) -> Split:
    """A test CSV as it is, its labels numbered: while training loads, so that none is found wrong only hours later."""
    table = read(path)
    return Split(table.images, classes.number(table.labels, table.place))


def _split(table: Table, labels: np.ndarray, classes: Classes, source: Source, *, with_test: bool) -> Parts:
    return split(
        labels,
        classes.names,
        str(table.path),
        seed=source.split_seed,
        keys=content_keys(table.images),
        validation=source.validation_fraction,
        test=source.test_fraction if with_test else None,
    )


def _paths(given: Path) -> tuple[Path, Path | None]:
    """The CSV to train, and the one to test where there are two."""
    if given.is_file():
        return given, None
    csvs = _csvs(given)
    train, test = ([path for path in csvs if part in path.name.lower()] for part in ("train", "test"))
    if len(train) != 1 or len(test) != 1 or train == test:
        raise DataError(
            f"{given} holds {', '.join(path.name for path in csvs)}; expected exactly one *train*.csv and "
            "one *test*.csv (or .csv.gz). Rename or remove the others, or name one CSV alone to have it split"
        )
    return train[0], test[0]


def _csvs(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(SUFFIXES) and path.is_file() and not path.name.startswith(".")
    )
