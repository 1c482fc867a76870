"""Where it errs: the most confident mistakes, labels that are likely wrong, training images that resemble one."""

from __future__ import annotations

import numpy as np

from training.extras import INSTALL


def confident_mistakes(probabilities: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """The positions of mistakes, int64 (at most `count`,), the most confident one first.

    Args:
        probabilities: float (N, C).
        labels: int (N,).
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:count]


def nearest(queries: np.ndarray, candidates: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The candidates at the smallest angle to each query.

    Args:
        queries: float (N, K).
        candidates: float (M, K).
        count: how many of each.

    Returns:
        positions: int64 (N, count), the nearest first.
        cosines: float (N, count), -1..1.
    """
    cosines = directions(queries) @ directions(candidates).T  # (N, M)
    positions = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return positions, np.take_along_axis(cosines, positions, axis=1)


def likely_label_errors(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The positions of images whose label is likely wrong, the least likely label first.

    By confident learning (Northcutt et al., 2021, https://arxiv.org/abs/1911.00068) as cleanlab does it. The model must
    not have been trained on the images.

    Args:
        probabilities: float (N, C).
        labels: int (N,), each class at least once.

    Raises:
        ImportError: cleanlab is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise ImportError(f"likely label errors need cleanlab: {INSTALL}") from error
    return find_label_issues(
        labels, probabilities.astype(np.float64), return_indices_ranked_by="self_confidence", n_jobs=1
    )


def directions(vectors: np.ndarray) -> np.ndarray:
    """The vectors, float (N, K), brought to length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
