"""Preferences for classes: the test against known values, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.bias import class_bias, stuart_maxwell


def test_with_two_classes_it_is_mcnemars_chi_square():
    statistic, freedom, p = stuart_maxwell(np.array([[50, 30], [10, 60]]))
    assert (statistic, freedom) == (pytest.approx((30 - 10) ** 2 / (30 + 10)), 1)
    assert p == pytest.approx(0.00157, rel=1e-2)


def test_stuart_maxwell_on_stuarts_table_of_the_vision_of_women():
    # Stuart (1955): unaided distance vision of 7477 women, right and left eye; 11.96 with 3 degrees of freedom
    table = np.array([[1520, 266, 124, 66], [234, 1512, 432, 78], [117, 362, 1772, 205], [36, 82, 179, 492]])
    statistic, freedom, p = stuart_maxwell(table)
    assert (statistic, freedom) == (pytest.approx(11.957, abs=5e-3), 3)
    assert p == pytest.approx(0.00753, abs=1e-4)


def test_no_mistakes_prefer_nothing():
    assert stuart_maxwell(np.diag([5, 6, 7])) == (0.0, 0, 1.0)


def test_classes_that_are_never_confused_count_for_nothing():
    statistic, freedom, _ = stuart_maxwell(np.array([[50, 30, 0], [10, 60, 0], [0, 0, 9]]))
    assert (statistic, freedom) == (pytest.approx(10.0), 1)


def test_it_says_that_one_class_is_nearly_everything():
    confusion = np.zeros((10, 10), int)
    confusion[:, 6] = 95
    confusion[:, 0] = 5
    found = class_bias(confusion, [f"class {number}" for number in range(10)])
    assert found["nearly_everything"] == "class 6"
    assert found["verdict"].replace("\N{NO-BREAK SPACE}", " ") == (
        "It says class 6 for nearly everything: 95 % of its answers, where 10 % of the images are that."
    )


def test_a_class_that_is_nearly_everything_may_be_said_so_often():
    assert class_bias(np.array([[95, 0], [1, 4]]), ["usual", "rare"])["nearly_everything"] is None


def test_what_may_be_chance_is_called_so():
    assert "may be chance" in class_bias(np.array([[90, 10], [9, 91]]), ["a", "b"])["verdict"]


def test_what_is_not_chance_is_named():
    verdict = class_bias(np.array([[60, 40, 0], [5, 95, 0], [0, 3, 0]]), ["a", "b", "c"])["verdict"]
    assert "it says b 138 times where there are 100, and a 65 times where there are 100" in verdict
    assert verdict.endswith("It never says c.")
