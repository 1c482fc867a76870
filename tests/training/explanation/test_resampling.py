"""Maps at another resolution: what lies in a corner stays there, and cells are measured at their centres."""

from __future__ import annotations

import numpy as np

from training.explanation.resampling import at_size


def test_maps_lie_where_they_lay():
    coarse = np.zeros((1, 3, 3), np.float32)
    coarse[0, 2, 0] = 1.0
    fine = at_size(coarse, 12)[0]
    assert np.unravel_index(fine.argmax(), fine.shape)[0] >= 10
    assert fine[:, 8:].max() == 0.0


def test_between_the_centres_it_is_linear():
    row = at_size(np.array([[[0.0, 1.0], [0.0, 1.0]]], np.float32), 4)[0, 0]
    np.testing.assert_allclose(row, [0.0, 0.25, 0.75, 1.0], atol=1e-6)


def test_a_finer_map_is_averaged():
    checks = np.indices((24, 24)).sum(axis=0) % 2
    np.testing.assert_allclose(at_size(checks[None].astype("float32"), 12)[0, 1:-1, 1:-1], 0.5, atol=1e-6)
