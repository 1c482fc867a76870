"""Which images train, validate and test: a split that stays, and no training image that another part repeats."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.datasets.base import DataError, Preprocessing, Split, TrainingData, light_on_dark
from training.datasets.labels import listed, readable


@dataclass(frozen=True)
class Parts:
    """Positions in what was split, int64, each in an order of its own that mixes the classes."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def order(keys: Sequence[str], seed: int) -> np.ndarray:
    """The positions 0..N-1 shuffled, int64 (N,): by a hash of each key, so that more keys leave the others in order."""
    digests = b"".join(
        hashlib.blake2b(f"{seed}\0{key}".encode(errors="surrogateescape"), digest_size=8).digest() for key in keys
    )
    return np.argsort(np.frombuffer(digests, ">u8"), kind="stable")


def content_keys(images: np.ndarray) -> list[str]:
    """The keys by which images without a name of their own are split: a hash of the pixels of each.

    Args:
        images: uint8 (N, H, W, C).
    """
    return [_digest(image).hex() for image in images]


def some_of_every(labels: np.ndarray, limit: int, seed: int, at_least: int = 1) -> np.ndarray:
    """The positions, ascending, of about `limit` images by lot: classes in proportion, of each `at_least` so many.

    Args:
        labels: int (N,).
        limit: all of them where there are no more.
        seed: of the lot.
        at_least: of every class, as far as it has so many.
    """
    share = min(1.0, limit / len(labels))
    generator = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        chosen.append(members[: max(at_least, round(share * len(members)))])
    return np.sort(np.concatenate(chosen))


def split(
    labels: np.ndarray,
    classes: Sequence[str],
    origin: str,
    *,
    seed: int,
    keys: Sequence[str] | None = None,
    validation: float | None,
    test: float | None,
) -> Parts:
    """Splits class by class. An image's place hangs on its key, so one that is added or removed moves few others.

    Images of a class with equal keys stay together, even if a part becomes larger by that.

    Args:
        labels: int64 (N,).
        classes: their names.
        origin: file or folder, for messages.
        keys: what each image is called, or `content_keys`; None: by its position.
        validation: fraction of what is not test; None: no such part.
        test: fraction of all; None: no such part.

    Returns:
        At least one image of every class in each part.

    Raises:
        DataError: a class has fewer images than there are parts.
    """
    counts = np.bincount(labels, minlength=len(classes))
    needed = 1 + (validation is not None) + (test is not None)
    short = [f"{name} ({count})" for name, count in zip(classes, counts, strict=True) if count < needed]
    if short:
        raise DataError(
            f"{origin}: a split needs at least {needed} images of every class, got fewer of {listed(short)}. "
            "Add images, remove the class, or split by hand"
        )
    keys = list(map(str, range(len(labels)))) if keys is None else keys
    ranked = order(keys, seed)
    part = np.zeros(len(labels), np.int8)
    for label in range(len(classes)):
        members = ranked[labels[ranked] == label]
        names = [keys[position] for position in members]
        tests = _between_keys(names, _share(len(members), test, keep=needed - 1), keep=needed - 1)
        held_out = _between_keys(names, tests + _share(len(members) - tests, validation, keep=1), keep=1)
        part[members[:tests]] = 2
        part[members[tests:held_out]] = 1
    return Parts(*(ranked[part[ranked] == number] for number in range(3)))


def without_repeats(train: Split, *held_out: np.ndarray) -> tuple[Split, int]:
    """Drops training images that occur among the held-out ones, pixel for pixel.

    Args:
        train: images uint8 (N, H, W, C).
        held_out: uint8 (M, H, W, C) each.

    Returns:
        What remains, and how many were dropped.
    """
    known = {_digest(image) for images in held_out for image in images}
    keep = np.array([_digest(image) not in known for image in train.images], bool)
    return train if keep.all() else Split(train.images[keep], train.labels[keep]), int((~keep).sum())


def training_data(
    train: Split,
    validation: Split,
    test_images: np.ndarray,
    *,
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    origin: str,
    sha256: str,
    limit: int | None,
) -> TrainingData:
    """Training data of arrays: repeats dropped, cut to `limit`, grey images turned as they are served, with the facts.

    Args:
        train, validation: images uint8 (N, H, W, C), labels int64 (N,).
        test_images: uint8 (M, H, W, C); only hashed.
        origin: the dataset's file or name, for messages and the facts.

    Raises:
        DataError: a class without training images.
    """
    kept, dropped = without_repeats(train, validation.images, test_images)
    check_every_class_trains(kept.labels, classes, origin)
    train, validation = kept.first(limit), validation.first(limit)
    facts = facts_of(train, validation, classes, origin, sha256, dropped_duplicates=dropped)
    if preprocessing == "fashion_mnist":
        train, validation = (Split(light_on_dark(part.images), part.labels) for part in (train, validation))
    return TrainingData(train, validation, classes, preprocessing, facts)


def check_every_class_trains(labels: np.ndarray, classes: Sequence[str], origin: str) -> None:
    """Raises DataError unless there is a training image of every class."""
    counts = np.bincount(labels, minlength=len(classes))
    missing = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if missing:
        raise DataError(
            f"{origin}: no training images of {listed(missing)} (what repeats a test or validation image is dropped). "
            "Add some, or remove the class"
        )


def facts_of(
    train: Split,
    validation: Split,
    classes: Sequence[str],
    origin: str,
    sha256: str,
    *,
    dropped_duplicates: int,
    skipped: Sequence[str] = (),
) -> dict[str, Any]:
    """What the manifest says about the data, which is text in UTF-8."""
    counted = {
        part: dict(zip(classes, np.bincount(split.labels, minlength=len(classes)).tolist(), strict=True))
        for part, split in (("train", train), ("validation", validation))
    }
    return {
        "source": readable(origin),
        "sha256": sha256,
        "counts": counted,
        "dropped_duplicates": dropped_duplicates,
        "skipped": [readable(one) for one in skipped],
    }


def _share(count: int, fraction: float | None, *, keep: int) -> int:
    return 0 if fraction is None else min(max(1, int(count * fraction + 0.5)), count - keep)


def _between_keys(ranked: Sequence[str], count: int, *, keep: int) -> int:
    """`count`, or as many more as it takes to part no equal keys, as long as `keep` are left."""
    while 0 < count < len(ranked) - keep and ranked[count - 1] == ranked[count]:
        count += 1
    return count


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()
