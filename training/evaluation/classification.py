"""How right: accuracy, precision, recall and F1 with their intervals, top-k, ROC-AUC, and what is taken for what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000
TOP = (2, 3, 5)


def wilson_interval(successes: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson, 1927), 95 % by default. Returns low, high in 0..1.

    Example:
        >>> [round(bound, 4) for bound in wilson_interval(9400, 10000)]
        [0.9352, 0.9445]
    """
    if not 0 <= successes <= total or total == 0:
        raise ValueError(f"expected 0 <= successes <= total and total > 0, got {successes} of {total}")
    share = successes / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return (centre - spread) / scale, (centre + spread) / scale


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 (C, C): rows are true classes, columns predicted ones."""
    return np.bincount(labels.astype(np.int64) * num_classes + predicted, minlength=num_classes**2).reshape(
        num_classes, -1
    )


def metrics(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy and macro F1 with their 95 % intervals, precision, recall and F1: averaged, and of every class.

    A macro average counts classes alike, a weighted one counts a class as often as it occurs.
    """
    correct, total = int(np.trace(confusion)), int(confusion.sum())
    precision, recall, f1 = scores = _scores(confusion)
    actual = confusion.sum(axis=1)
    averages = {
        f"{average}_{name}": float(np.average(values, weights=weights))
        for average, weights in (("macro", None), ("weighted", actual))
        for name, values in zip(("precision", "recall", "f1"), scores, strict=True)
    }
    return {
        "images": total,
        "accuracy": correct / total,
        "accuracy_wilson_95": list(wilson_interval(correct, total)),
        **averages,
        "macro_f1_bootstrap_95": list(macro_f1_interval(confusion)),
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "images": int(n)}
            for name, p, r, f, n in zip(classes, precision, recall, f1, actual, strict=True)
        },
        "confusion_matrix": confusion.tolist(),
    }


def macro_f1_interval(confusion: np.ndarray, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval (Efron, 1979) of the macro F1: as many images drawn again, class by class.

    Args:
        confusion: int (C, C), rows are true classes.

    Returns:
        low, high in 0..1, the same for the same matrix.
    """
    generator = np.random.default_rng(0)
    actual = confusion.sum(axis=1)
    shares = confusion / np.maximum(actual, 1)[:, None]
    shares[actual == 0] = 1.0 / len(confusion)
    drawn = np.stack(
        [generator.multinomial(n, share, resamples) for n, share in zip(actual, shares, strict=True)], axis=1
    )
    scores = [_scores(one)[2].mean() for one in drawn]  # drawn: (resamples, C, C)
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)


def top_k(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """How often the true class is among the k most probable ones, 0..1.

    Args:
        probabilities: float (N, C).
        labels: int (N,).
    """
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """The area under the ROC curve: how often a positive scores above a negative, a tie counts half.

    By ranks (Hanley and McNeil, 1982).

    Args:
        scores: float (N,).
        positive: bool (N,).

    Returns:
        0..1, or None where all are positive or none is.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    values, where, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # of ties, their mean; from 1
    return float((ranks[where][positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def of_probabilities(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """What more the probabilities say than the predicted classes.

    Returns:
        top_k: by k, those of TOP that leave something out.
        roc_auc_macro: mean of the classes', each against the rest; None where no class has one.
        roc_auc: by class name; None for a class without images.
    """
    areas = {name: roc_auc(probabilities[:, number], labels == number) for number, name in enumerate(classes)}
    known = [area for area in areas.values() if area is not None]
    return {
        "top_k": {str(k): top_k(probabilities, labels, k) for k in TOP if k < len(classes)},
        "roc_auc_macro": float(np.mean(known)) if known else None,
        "roc_auc": areas,
    }


def confusions(confusion: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Which class is taken for which, the most frequent first; what never happens is left out.

    Returns:
        true, predicted: class names; images; share: of the true class's images, 0..1.
    """
    mistakes = confusion * ~np.eye(len(confusion), dtype=bool)
    actual = confusion.sum(axis=1)
    rows, columns = np.nonzero(mistakes)
    order = np.lexsort((columns, rows, -mistakes[rows, columns]))
    return [
        {
            "true": classes[row],
            "predicted": classes[column],
            "images": int(mistakes[row, column]),
            "share": float(mistakes[row, column] / actual[row]),
        }
        for row, column in zip(rows[order], columns[order], strict=True)
    ]


def _scores(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of every class, float64 (C,); 0 where undefined."""
    hits = np.diag(confusion)
    precision, recall = _ratio(hits, confusion.sum(axis=0)), _ratio(hits, confusion.sum(axis=1))
    return precision, recall, _ratio(2 * precision * recall, precision + recall)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)
