"""The shipped version on all official test images, through its served signatures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from training import manifest
from training.data import load_test
from training.evaluate import evaluate, png

VERSION = Path(__file__).resolve().parents[2] / "serving/models/fashion_mnist/1"
TARGET = 0.94
BATCH = 100  # images


def test_accuracy_is_what_the_manifest_says_and_reaches_the_target():
    measured = evaluate(VERSION, load_test())["accuracy"]
    assert measured == pytest.approx(manifest.read(VERSION)["metrics"]["test"]["accuracy"], abs=1e-3)
    assert measured >= TARGET


@pytest.fixture(scope="module")
def signatures():
    return tf.saved_model.load(str(VERSION)).signatures


def batches() -> list[np.ndarray]:
    images = load_test().images
    return [images[start : start + BATCH] for start in range(0, len(images), BATCH)]


def through_png(signatures, images: np.ndarray) -> np.ndarray:
    return signatures["serving_default"](image_bytes=tf.constant([png(image) for image in images]))["class_id"].numpy()


@pytest.fixture(scope="module")
def expected(signatures) -> np.ndarray:
    """Classes predicted from PNG bytes, int64 (10000,)."""
    return np.concatenate([through_png(signatures, images) for images in batches()])


def test_pixels_give_the_same_classes(signatures, expected):
    found = [
        signatures["pixels"](pixels=tf.constant(images.reshape(len(images), -1), tf.float32))["class_id"].numpy()
        for images in batches()
    ]
    np.testing.assert_array_equal(np.concatenate(found), expected)


def test_inverted_images_give_the_same_classes(signatures, expected):
    found = [through_png(signatures, 255 - images) for images in batches()]
    np.testing.assert_array_equal(np.concatenate(found), expected)
