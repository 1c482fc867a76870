"""Opening a version for explanation, and what is said when it cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from training.explanation.errors import ExplanationError
from training.explanation.version import open_version


@pytest.fixture(scope="module")
def version(models):
    return open_version(models, "fashion_mnist", 1)


def test_what_it_holds(version):
    assert version.title == "fashion_mnist, version 1"
    assert version.layers == ("relu_3", "relu_2", "relu_1")
    assert version.view.shape == (28, 28, 1)
    assert version.layers_called(None) == ("relu_3",)
    assert version.layers_called(["all"]) == version.layers
    assert version.layers_called(["relu_1"]) == ("relu_1",)


def test_nothing_is_an_empty_view(version):
    network = version.network("relu_3")
    empty = version.to_model(np.zeros((1, 28, 28, 1)))
    np.testing.assert_array_equal(np.broadcast_to(network.baseline, empty.shape), empty)


@pytest.mark.parametrize(("choice", "number"), [("Bag", 8), ("ankle BOOT", 9), ("3", 3), ("t-shirt/top", 0)])
def test_a_class_by_name_or_number(choice, number, version):
    assert version.class_id(choice) == number


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("10", r"no class '10'; the classes are 0 T-shirt/top, .*9 Ankle boot"),
        ("-1", r"no class '-1'; the classes are 0 T-shirt/top"),
        ("Sneakers", r"no class 'Sneakers' \(did you mean 'Sneaker'\?\); the classes are"),
    ],
)
def test_a_class_that_does_not_exist(choice, message, version):
    with pytest.raises(ExplanationError, match=message):
        version.class_id(choice)


def test_a_version_without_a_keras_model(models):
    with pytest.raises(ExplanationError, match=r"2 has no assets.extra/model.keras.*that have one: 1$"):
        open_version(models, "fashion_mnist", 2)


def test_a_model_that_does_not_exist(models):
    expected = r"no model 'fashion-mnist'.*did you mean 'fashion_mnist'\?\); there are: fashion_mnist"
    with pytest.raises(FileNotFoundError, match=expected):
        open_version(models, "fashion-mnist", None)
    with pytest.raises(FileNotFoundError, match="has no version 7; there are: 1, 2"):
        open_version(models, "fashion_mnist", 7)
