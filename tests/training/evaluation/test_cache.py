"""What is kept, what is computed anew, and what an interruption leaves."""

from __future__ import annotations

import numpy as np
import pytest

from training.datasets import Split
from training.evaluation.cache import Cache, digest_of


def never():
    raise AssertionError("computed again")


def test_figures_and_arrays_are_kept(tmp_path):
    cache = Cache(tmp_path / "cache", version="a")
    assert cache.figures("sum", {"of": [1, 2]}, lambda: {"is": 3}) == {"is": 3}
    assert cache.array("ones", {}, lambda: np.ones(3, np.float32)).tolist() == [1, 1, 1]
    again = Cache(tmp_path / "cache", version="a")
    assert again.figures("sum", {"of": [1, 2]}, never) == {"is": 3}
    assert again.array("ones", {}, never).dtype == np.float32


@pytest.mark.parametrize(
    ("version", "name", "parameters"), [("b", "sum", {"of": [1]}), ("a", "product", {"of": [1]}), ("a", "sum", {})]
)
def test_something_else_is_computed(tmp_path, version, name, parameters):
    Cache(tmp_path, version="a").figures("sum", {"of": [1]}, lambda: 1)
    assert Cache(tmp_path, version=version).figures(name, parameters, lambda: 2) == 2


def test_what_is_interrupted_leaves_nothing(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    cache = Cache(tmp_path, version="a")
    with pytest.raises(KeyboardInterrupt):
        cache.figures("sum", {}, interrupted)
    with pytest.raises(TypeError, match="not JSON serializable"):
        cache.figures("sum", {}, lambda: object())
    assert list(tmp_path.iterdir()) == []


def test_the_digest_is_of_images_and_labels():
    images, labels = np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1])
    same = digest_of(Split(images, labels))
    assert same == digest_of(Split(images.copy(), labels.astype(np.int32)))
    assert same != digest_of(Split(images, labels[::-1]))
    assert same != digest_of(Split(images.reshape(2, 2, 8, 1), labels))
    assert same != digest_of(Split(images + 1, labels))
