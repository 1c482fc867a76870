"""Figures of the data: counts, pixels, repeated images, means, samples."""

from __future__ import annotations

import numpy as np
import pytest

from training.datasets import Split
from training.evaluation.data import describe, duplicates, mean_images, pixels, samples


def split(levels, labels, channels=1) -> Split:
    return Split(np.array(levels, np.uint8)[:, None, None, None].repeat(channels, axis=3), np.array(labels))


def test_repeated_images():
    found = duplicates(
        {"train": split([1, 1, 2, 3], [0, 1, 0, 1]), "validation": split([2], [0]), "test": split([3, 9], [1, 0])}
    )
    assert found["within"] == {"train": 1, "validation": 0, "test": 0}
    assert found["between"] == {"train and validation": 1, "train and test": 1, "validation and test": 0}
    assert found["contradicting"] == 1
    assert found["examples"] == [[["train", 0, 0], ["train", 1, 1]]]


def test_pixels():
    images = np.random.default_rng(0).integers(0, 256, (700, 3, 5, 3), np.uint8)
    found = pixels(images)
    assert found["mean"] == pytest.approx(images.mean(axis=(0, 1, 2)))
    assert found["deviation"] == pytest.approx(images.std(axis=(0, 1, 2)))
    assert found["black"] == pytest.approx((images == 0).mean())
    assert sum(found["histogram"]) == pytest.approx(1.0)


def test_counts_and_imbalance():
    found = describe({"train": split([1, 2, 3], [0, 0, 1]), "test": split([4], [1])}, ["a", "b"])
    assert found["counts"] == {"train": {"a": 2, "b": 1}, "test": {"a": 0, "b": 1}}
    assert found["imbalance"] == 2.0
    assert found["image"] == [1, 1, 1]
    assert describe({"train": split([1], [0])}, ["a", "b"])["imbalance"] is None


def test_mean_images():
    found = mean_images(split([10, 20, 200], [0, 0, 2], channels=3), 3)
    assert found[:, 0, 0, 0].tolist() == [15, 0, 200]


def test_samples_are_spread_over_the_data():
    labels = np.array([0] * 100 + [1] * 2)
    first, second, third = samples(labels, 3, 5)
    assert (len(first), first[0], first[-1]) == (5, 0, 99)
    assert second.tolist() == [100, 101]
    assert third.tolist() == []
