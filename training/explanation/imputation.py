"""Noisy linear imputation: removed pixels filled in from their neighbours, so that their shape says little.

Source: Rong et al., 2022, https://arxiv.org/abs/2202.00449, section 4.2: a removed pixel is the weighted mean of its
eight neighbours, removed ones among them, which is one sparse linear system an image.
"""

from __future__ import annotations

import functools

import numpy as np
from scipy.linalg import solveh_banded

DIRECT, DIAGONAL = 1 / 6, 1 / 12  # weights of a neighbour beside, and at the corner
NOISE = 0.01 * 255.0  # standard deviation of what is added to filled pixels


def impute(views: np.ndarray, removed: np.ndarray, seed: int = 0) -> np.ndarray:
    """Fills in the removed pixels.

    Args:
        views: float32 (N, V, V, C), 0..255.
        removed: bool (N, V, V); not all of an image.
        seed: of the noise, the same for every image.

    Returns:
        float32 (N, V, V, C); pixels that are not removed are as they were.

    Raises:
        ValueError: an image of which nothing is left.
    """
    if removed.all(axis=(1, 2)).any():
        raise ValueError("expected some pixels of every image to be left, got an image of which all are removed")
    noise = np.random.default_rng(seed).normal(0.0, NOISE, views.shape[1:])
    filled = np.stack([_smooth(view, holes) for view, holes in zip(views, removed, strict=True)])
    return np.where(removed[..., None], filled + noise, views).astype(np.float32)


def _smooth(view: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """(V, V, C) -> the same, where sum over neighbours of weight * (x_j - x_i) = 0 for every removed pixel i."""
    size = removed.shape[0]
    values, holes = view.reshape(size * size, -1).astype(np.float64), removed.ravel()
    edges, totals = _edges(size)
    matrix = np.zeros((size + 2, size * size))  # a row a lower diagonal
    matrix[0] = np.where(holes, totals, 1.0)
    right = np.where(holes[:, None], 0.0, values)
    for offset, first, weight in edges:
        second = first + offset
        both = holes[first] & holes[second]
        matrix[offset, first[both]] = -weight
        for here, there in ((first, second), (second, first)):
            known = holes[here] & ~holes[there]
            right[here[known]] += weight * values[there[known]]  # a pixel has one neighbour at an offset: none is lost
    return solveh_banded(matrix, right, lower=True, overwrite_ab=True, check_finite=False).reshape(view.shape)


@functools.cache
def _edges(size: int) -> tuple[list[tuple[int, np.ndarray, float]], np.ndarray]:
    """Pairs of neighbours as (distance, first pixels, weight), and every pixel's sum of weights, (size * size,)."""
    pixels = np.arange(size * size).reshape(size, size)
    edges = [
        (1, pixels[:, :-1].ravel(), DIRECT),
        (size, pixels[:-1].ravel(), DIRECT),
        (size - 1, pixels[:-1, 1:].ravel(), DIAGONAL),
        (size + 1, pixels[:-1, :-1].ravel(), DIAGONAL),
    ]
    totals = np.zeros(size * size)
    for offset, first, weight in edges:
        np.add.at(totals, first, weight)
        np.add.at(totals, first + offset, weight)
    return edges, totals
