"""The shipped version on all official test images, through its served signatures."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from shipped import SHIPPED

from training import manifest
from training.datasets import Split, load_test
from training.evaluate import evaluate
from training.evaluation.classification import confusion_matrix
from training.evaluation.served import BATCH

TARGET = 0.95


@pytest.fixture(scope="module")
def report():
    """Through PNG bytes, as they are."""
    return evaluate(SHIPPED, load_test())


def test_accuracy_is_what_the_manifest_says_and_reaches_the_target(report):
    # another processor rounds otherwise, which may turn an image or two
    assert report["accuracy"] == pytest.approx(manifest.read(SHIPPED)["metrics"]["test"]["accuracy"], abs=1e-3)
    assert report["accuracy"] >= TARGET


def test_inverted_images_are_classified_alike(report):
    test = load_test()
    assert evaluate(SHIPPED, Split(255 - test.images, test.labels)) == report


def test_pixels_are_classified_alike(report):
    test = load_test()
    serve = tf.saved_model.load(str(SHIPPED)).signatures["pixels"]
    rows = test.images.reshape(len(test), -1).astype("float32")
    predicted = [
        serve(pixels=tf.constant(rows[start : start + BATCH]))["class_id"] for start in range(0, len(rows), BATCH)
    ]
    assert confusion_matrix(test.labels, np.concatenate(predicted), 10).tolist() == report["confusion_matrix"]
