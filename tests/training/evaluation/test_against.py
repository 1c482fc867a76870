"""One version against another."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.against import against


def test_the_better_one_is_named():
    right, other = np.ones(100, bool), np.ones(100, bool)
    other[:12] = False
    found = against(right, other, 3)
    assert (found["only_this_right"], found["only_other_right"]) == (12, 0)
    assert found["mcnemar_p"] == pytest.approx(2 * 0.5**12)
    assert "this version is better" in found["verdict"]
    assert "version 3 is better" in against(other, right, 3)["verdict"]


def test_what_may_be_chance():
    right, other = np.ones(100, bool), np.ones(100, bool)
    right[0], other[1] = False, False
    assert "may be chance" in against(right, other, 1)["verdict"]
