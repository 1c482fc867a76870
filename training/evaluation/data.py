"""What it was shown: classes and their sizes, mean images, the statistics of pixels, images that are there twice."""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from training.datasets import Split

BINS = 64  # of the histogram of pixels
_AT_ONCE = 500  # images, so that large ones need no second copy in memory


def describe(splits: Mapping[str, Split], classes: Sequence[str]) -> dict[str, Any]:
    """The figures of the data.

    Args:
        splits: by name, such as train, validation and test.
        classes: their names.

    Returns:
        image: height, width, channels.
        counts: by split and class name, in images.
        imbalance: the largest class of `train` by its smallest; None where one is empty.
        pixels: by split, `pixels`.
        duplicates: `duplicates`.
    """
    counts = {name: np.bincount(split.labels, minlength=len(classes)).tolist() for name, split in splits.items()}
    train = counts["train"]
    return {
        "image": list(splits["train"].images.shape[1:]),
        "counts": {name: dict(zip(classes, numbers, strict=True)) for name, numbers in counts.items()},
        "imbalance": max(train) / min(train) if min(train) else None,
        "pixels": {name: pixels(split.images) for name, split in splits.items()},
        "duplicates": duplicates(splits),
    }


def pixels(images: np.ndarray) -> dict[str, Any]:
    """Statistics of pixels.

    Args:
        images: uint8 (N, H, W, C).

    Returns:
        mean, deviation: by channel, 0..255; black, white: the share of values 0 and 255; histogram: shares of BINS
        bins of equal width over 0..255.
    """
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for start in range(0, len(images), _AT_ONCE):
        for channel in range(images.shape[-1]):
            counts[channel] += np.bincount(images[start : start + _AT_ONCE, ..., channel].ravel(), minlength=256)
    shares = counts / counts.sum(axis=1, keepdims=True)  # (C, 256)
    levels = np.arange(256)
    mean = shares @ levels
    overall = shares.mean(axis=0)
    return {
        "mean": mean.tolist(),
        "deviation": np.sqrt(np.maximum(shares @ levels**2 - mean**2, 0.0)).tolist(),
        "black": float(overall[0]),
        "white": float(overall[255]),
        "histogram": overall.reshape(BINS, -1).sum(axis=1).tolist(),
    }


def duplicates(splits: Mapping[str, Split]) -> dict[str, Any]:
    """Images that are the same to the last pixel.

    Returns:
        within: by split, how many are there already.
        between: by "a and b", how many images of b are in a.
        contradicting: how many images are there with more than one label.
        examples: up to 10 of the latter, as lists of [split, position, label].
    """
    places: dict[bytes, list[tuple[str, int, int]]] = defaultdict(list)
    for name, split in tqdm(splits.items(), desc="finding duplicates", unit="split", disable=not sys.stderr.isatty()):
        for position, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
            digest = hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest()
            places[digest].append((name, position, label))
    names = list(splits)
    within = dict.fromkeys(names, 0)
    between = {f"{a} and {b}": 0 for number, a in enumerate(names) for b in names[number + 1 :]}
    contradicting = []
    for found in places.values():
        if len(found) == 1:
            continue
        counts = {name: sum(place[0] == name for place in found) for name in names}
        for number, a in enumerate(names):
            within[a] += max(counts[a] - 1, 0)
            for b in names[number + 1 :]:
                between[f"{a} and {b}"] += counts[b] if counts[a] else 0
        if len({label for _, _, label in found}) > 1:
            contradicting.append([list(place) for place in found])
    return {
        "within": within,
        "between": between,
        "contradicting": len(contradicting),
        "examples": contradicting[:10],
    }


def mean_images(split: Split, num_classes: int) -> np.ndarray:
    """The mean image of every class, uint8 (num_classes, H, W, C); black for a class without images."""
    means = np.zeros((num_classes, *split.images.shape[1:]), np.uint8)
    for label in np.unique(split.labels):
        members = np.flatnonzero(split.labels == label)
        total = np.zeros(split.images.shape[1:], np.float64)
        for start in range(0, len(members), _AT_ONCE):
            total += split.images[members[start : start + _AT_ONCE]].sum(axis=0, dtype=np.float64)
        means[label] = np.rint(total / len(members)).astype(np.uint8)
    return means


def samples(labels: np.ndarray, num_classes: int, count: int) -> list[np.ndarray]:
    """For every class the positions of up to `count` images, spread over the data."""
    chosen = []
    for label in range(num_classes):
        members = np.flatnonzero(labels == label)
        spread = np.unique(np.linspace(0, max(len(members) - 1, 0), min(count, len(members))).astype(int))
        chosen.append(members[spread])
    return chosen
