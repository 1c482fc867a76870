"""Whether a model prefers classes: how often each is predicted against how often it occurs, and if that is chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from training.evaluation.wording import percent

NEARLY_ALL = 0.8  # of all answers
LIKELY = 0.01  # p below which a difference is not put down to chance


def class_bias(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Compares the columns' sums of a confusion matrix with its rows'.

    Args:
        confusion: int (C, C), rows are true classes.
        classes: C names.

    Returns:
        counts: by class name, `occurs` and `predicted`, in images.
        statistic, degrees_of_freedom, p: see `stuart_maxwell`.
        nearly_everything: the class that is nearly all that is ever said, or None.
        verdict: the same in a sentence or two.
    """
    occurs, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    statistic, freedom, p = stuart_maxwell(confusion)
    share, actual = predicted / confusion.sum(), occurs / confusion.sum()
    most = int(share.argmax())
    nearly = share[most] >= NEARLY_ALL and share[most] - actual[most] > (1 - NEARLY_ALL)
    return {
        "counts": {
            name: {"occurs": int(n), "predicted": int(m)} for name, n, m in zip(classes, occurs, predicted, strict=True)
        },
        "statistic": statistic,
        "degrees_of_freedom": freedom,
        "p": p,
        "nearly_everything": classes[most] if nearly else None,
        "verdict": _verdict(occurs, predicted, classes, p, classes[most] if nearly else None),
    }


def stuart_maxwell(confusion: np.ndarray) -> tuple[float, int, float]:
    """Whether rows and columns have the same sums: the test of marginal homogeneity (Stuart, 1955; Maxwell, 1970).

    Truth and answer are of the same image, so the counts are paired: a chi-square test of two samples would not hold.

    Args:
        confusion: int (C, C).

    Returns:
        The statistic d' S^-1 d, d being rows' minus columns' sums and S their covariance; its degrees of freedom; the
        p-value from the chi-square distribution, 1 where no image is off the diagonal.
    """
    table = confusion.astype(np.float64)
    difference = table.sum(axis=1) - table.sum(axis=0)
    covariance = np.diag(table.sum(axis=1) + table.sum(axis=0)) - table - table.T
    freedom = int(np.linalg.matrix_rank(covariance))  # C - 1, less where classes are never confused with others
    if not freedom:
        return 0.0, 0, 1.0
    statistic = float(difference @ np.linalg.pinv(covariance, hermitian=True) @ difference)
    return statistic, freedom, float(stats.chi2.sf(statistic, freedom))


def _verdict(
    occurs: np.ndarray, predicted: np.ndarray, classes: Sequence[str], p: float, nearly_everything: str | None
) -> str:
    total = occurs.sum()
    never = [name for name, n, m in zip(classes, occurs, predicted, strict=True) if n and not m]
    if nearly_everything is not None:
        number = list(classes).index(nearly_everything)
        said, true = percent(predicted[number] / total, 0), percent(occurs[number] / total, 0)
        return (
            f"It says {nearly_everything} for nearly everything: {said} of its answers, where {true} of the images are "
            "that."
        )
    silent = f" It never says {', '.join(never)}." if never else ""
    if p >= LIKELY:
        return (
            f"It names the classes about as often as they occur; the differences may be chance (p = {p:.2g}).{silent}"
        )
    gap = predicted - occurs
    often, seldom = int(gap.argmax()), int(gap.argmin())
    return (
        f"It prefers some classes by more than chance (p = {p:.2g}): it says {classes[often]} {predicted[often]} times "
        f"where there are {occurs[often]}, and {classes[seldom]} {predicted[seldom]} times where there are "
        f"{occurs[seldom]}.{silent}"
    )
