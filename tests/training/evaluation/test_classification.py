"""The figures of a classification, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.classification import (
    confusion_matrix,
    confusions,
    macro_f1_interval,
    metrics,
    of_probabilities,
    roc_auc,
    top_k,
    wilson_interval,
)


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


def test_metrics():
    report = metrics(confusion_matrix(LABELS, PREDICTED, 3), ["bag", "boot", "coat"])
    assert report["images"] == 6
    assert report["accuracy"] == pytest.approx(4 / 6)
    assert report["accuracy_wilson_95"] == pytest.approx([0.3, 0.9032], abs=5e-4)
    bag, boot, coat = report["per_class"].values()
    assert bag == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "images": 3})
    assert boot == pytest.approx({"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "images": 2})
    assert coat == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "images": 1}
    assert report["macro_f1"] == pytest.approx((2 / 3 + 0.8 + 0) / 3)
    assert report["macro_precision"] == pytest.approx(4 / 9)
    assert report["weighted_recall"] == pytest.approx(report["accuracy"])
    assert report["weighted_f1"] == pytest.approx((3 * 2 / 3 + 2 * 0.8) / 6)


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


PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.2, 0.7]])


@pytest.mark.parametrize(("k", "share"), [(1, 1 / 3), (2, 2 / 3), (3, 1.0)])
def test_top_k(k, share):
    assert top_k(PROBABILITIES, np.array([0, 0, 0]), k) == pytest.approx(share)


def test_roc_auc_is_how_often_a_positive_scores_above_a_negative():
    generator = np.random.default_rng(0)
    scores, positive = generator.integers(0, 20, 200).astype(float), generator.random(200) < 0.3
    pairs = scores[positive][:, None] - scores[~positive][None, :]
    assert roc_auc(scores, positive) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_roc_auc_of_one_kind_alone():
    assert roc_auc(np.array([0.1, 0.9]), np.array([True, True])) is None


def test_what_more_probabilities_say():
    found = of_probabilities(PROBABILITIES, np.array([0, 1, 1]), ["a", "b", "c"])
    assert found["top_k"] == {"2": 1.0}
    assert found["roc_auc"] == {"a": 1.0, "b": 0.75, "c": None}
    assert found["roc_auc_macro"] == pytest.approx(0.875)


def test_confusions_are_ranked_and_what_never_happens_is_left_out():
    found = confusions(np.array([[7, 1, 2], [0, 5, 0], [4, 0, 4]]), ["a", "b", "c"])
    assert [(one["true"], one["predicted"], one["images"]) for one in found] == [
        ("c", "a", 4),
        ("a", "c", 2),
        ("a", "b", 1),
    ]
    assert found[0]["share"] == 0.5
