"""Labels to class ids: numbers, names, their order, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from training.datasets import DataError
from training.datasets.labels import classes_of, texts


def place(row: int) -> str:
    return f"row {row}"


def ids(labels, class_names=None) -> tuple[tuple[str, ...], list[int]]:
    written = texts(labels, place)
    classes = classes_of(written, class_names, "pets")
    numbered = classes.number(written, place)
    assert numbered.dtype == np.int64
    return classes.names, numbered.tolist()


@pytest.mark.parametrize(
    ("labels", "class_names", "names", "numbers"),
    [
        (["dog", "cat", "dog"], None, ("cat", "dog"), [1, 0, 1]),
        (["dog", "cat"], ("owl", "dog", "cat"), ("owl", "dog", "cat"), [1, 2]),
        (["10", "9", "2"], None, ("2", "9", "10"), [2, 1, 0]),
        (["3.0", "1"], None, ("1", "3"), [1, 0]),
        (["1", "0"], ("cat", "dog"), ("cat", "dog"), [1, 0]),
        (["2", "0"], ("cat", "dog", "owl"), ("cat", "dog", "owl"), [2, 0]),
        (["b", "10", "9"], None, ("9", "10", "b"), [2, 1, 0]),
        ([" cat ", "dog"], None, ("cat", "dog"), [0, 1]),
    ],
)
def test_labels_become_ids(labels, class_names, names, numbers):
    assert ids(labels, class_names) == (names, numbers)


@pytest.mark.parametrize("label", ["", " ", "nan", "NaN", "-1", "1.5", "-0.5"])
def test_a_label_that_is_none_is_named_by_its_place(label):
    with pytest.raises(DataError, match=rf"row 2: label '{label.strip()}'; expected a name or a whole number"):
        texts(["0", "1", label, "", "-3"], place)


@pytest.mark.parametrize(
    ("labels", "class_names", "message"),
    [
        (["0", "1", "2"], ("cat", "dog"), r"row 2: label '2' is no class; expected '0', '1'"),
        (["cat", "owl", "dog"], ("cat", "dog"), r"row 1: label 'owl' is no class; expected 'cat', 'dog'"),
        (["cat", "cat"], None, r"pets: every image is of the class 'cat'; expected at least two"),
        (["0", "1"], ("cat", "cat"), r"pets: class names 'cat' occur twice"),
        (["0", "1"], ("cat", "d\nog"), r"class name 'd\\nog'; expected a name of one line"),
        (["0", "1"], ("cat", "\udcff"), r"expected a name of one line in UTF-8"),
        (["0", "1"], ("cat",), r"pets: 'cat' is the only class"),
    ],
)
def test_what_fits_no_class_is_refused(labels, class_names, message):
    with pytest.raises(DataError, match=message):
        ids(labels, class_names)
