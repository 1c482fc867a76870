"""The figures of an evaluation, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from training.evaluate import confusion_matrix, macro_f1_interval, metrics, plot_confusion, table, wilson_interval


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (9400, 10000, 0.9352, 0.9445)],
)
def test_wilson_interval(successes, total, low, high):
    assert wilson_interval(successes, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("successes", "total"), [(1, 0), (0, 0), (-1, 5), (6, 5)])
def test_wilson_interval_of_no_proportion(successes, total):
    with pytest.raises(ValueError, match="0 <= successes <= total"):
        wilson_interval(successes, total)


LABELS = np.array([0, 0, 0, 1, 1, 2], np.uint8)
PREDICTED = np.array([0, 0, 1, 1, 1, 0])  # class 2 is never predicted


def test_confusion_matrix_has_true_classes_as_rows():
    found = confusion_matrix(LABELS, PREDICTED, 4)
    assert found.tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_labels_of_uint8_do_not_overflow():
    found = confusion_matrix(np.array([25], np.uint8), np.array([3]), 26)
    assert found[25, 3] == found.sum() == 1


@pytest.fixture
def report() -> dict:
    return metrics(confusion_matrix(LABELS, PREDICTED, 3), ["bag", "boot", "coat"])


def test_metrics(report):
    assert report["images"] == 6
    assert report["accuracy"] == pytest.approx(4 / 6)
    assert report["accuracy_wilson_95"] == pytest.approx([0.3, 0.9032], abs=5e-4)
    bag, boot, coat = report["per_class"].values()
    assert bag == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "images": 3})
    assert boot == pytest.approx({"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "images": 2})
    assert coat == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "images": 1}
    assert report["macro_f1"] == pytest.approx((2 / 3 + 0.8 + 0) / 3)


def test_the_interval_of_the_macro_f1_covers_it_and_narrows_with_more_images():
    one = np.array([[40, 10], [5, 45]])
    low, high = macro_f1_interval(one)
    assert 0.75 < low < metrics(one, ["a", "b"])["macro_f1"] < high < 0.93
    assert macro_f1_interval(one) == (low, high)
    many_low, many_high = macro_f1_interval(100 * one)
    assert many_high - many_low == pytest.approx((high - low) / 10, rel=0.1)


def test_the_interval_of_the_macro_f1_bears_a_class_without_images():
    low, high = macro_f1_interval(np.array([[5, 0, 0], [0, 5, 0], [0, 0, 0]]))
    assert low == high == pytest.approx(2 / 3)


def test_table_says_it_all(report):
    text = table(report)
    assert "accuracy 0.6667" in text
    assert "macro F1 0.4889 (95 % bootstrap interval" in text
    for name in ("bag", "boot", "coat"):
        assert name in text


def test_plot_is_written(report, tmp_path):
    plot_confusion(report, tmp_path / "confusion.png")
    picture = np.asarray(Image.open(tmp_path / "confusion.png").convert("L"))
    assert min(picture.shape) > 500
    assert picture.std() > 5
