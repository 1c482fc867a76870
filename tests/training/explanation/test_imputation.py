"""Noisy linear imputation against the system written out, and what it must leave alone."""

from __future__ import annotations

import numpy as np
import pytest

from training.explanation.imputation import DIAGONAL, DIRECT, NOISE, impute


@pytest.fixture
def views() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (3, 7, 7, 2)).astype("float32")


def test_what_is_filled_in_solves_the_system(views):
    removed = np.random.default_rng(1).uniform(size=(3, 7, 7)) < 0.6
    noise = np.random.default_rng(0).normal(0.0, NOISE, views.shape[1:])
    filled = impute(views, removed, seed=0) - np.where(removed[..., None], noise, 0.0)
    for view, holes in zip(filled, removed, strict=True):
        for y, x in np.argwhere(holes):
            pull = np.zeros(2)
            for dy, dx in np.argwhere(np.ones((3, 3))) - 1:
                inside = 0 <= y + dy < 7 and 0 <= x + dx < 7
                if inside and (dy, dx) != (0, 0):
                    pull += (DIAGONAL if dy and dx else DIRECT) * (view[y + dy, x + dx] - view[y, x])
            np.testing.assert_allclose(pull, 0.0, atol=1e-3)


def test_what_is_left_stays(views):
    removed = np.zeros((3, 7, 7), bool)
    removed[:, 2:5, 3] = True
    filled = impute(views, removed)
    np.testing.assert_array_equal(filled[~removed], views[~removed])
    assert (filled[removed] != views[removed]).all()
    np.testing.assert_array_equal(impute(views, np.zeros_like(removed)), views)


def test_an_even_ground_is_filled_evenly():
    removed = np.zeros((1, 9, 9), bool)
    removed[0, 1:8, :6] = True
    filled = impute(np.full((1, 9, 9, 1), 80.0, np.float32), removed)
    assert np.abs(filled - 80.0).max() < 6 * NOISE
    assert filled[removed].std() == pytest.approx(NOISE, rel=0.4)


def test_nothing_left(views):
    with pytest.raises(ValueError, match="expected some pixels of every image to be left"):
        impute(views, np.ones((3, 7, 7), bool))
