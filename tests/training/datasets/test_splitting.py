"""The split by class: fractions, what it hangs on, and no training image that another part repeats."""

from __future__ import annotations

import numpy as np
import pytest

from training.datasets import DataError, Split
from training.datasets.splitting import order, some_of_every, split, training_data, without_repeats

CLASSES = ("cat", "dog", "owl")
LABELS = np.repeat([0, 1, 2], [100, 40, 3])
BOTH = {"seed": 0, "validation": 0.1, "test": 0.15}


def test_every_image_is_in_one_part_and_every_class_in_each():
    parts = split(LABELS, CLASSES, "pets", **BOTH)
    together = np.concatenate([parts.train, parts.validation, parts.test])
    assert sorted(together.tolist()) == list(range(len(LABELS)))
    counts = [np.bincount(LABELS[part]).tolist() for part in (parts.train, parts.validation, parts.test)]
    assert counts == [[76, 31, 1], [9, 3, 1], [15, 6, 1]]  # a tenth of the 85, 34 and 2 that are not test


def test_the_parts_mix_the_classes():
    train = split(LABELS, CLASSES, "pets", **BOTH).train
    assert set(LABELS[train[:10]]) > {0}


def test_the_same_seed_splits_alike_and_another_otherwise():
    first, again, other = (split(LABELS, CLASSES, "pets", **BOTH | {"seed": seed}) for seed in (0, 0, 1))
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(first, part), getattr(again, part))
    assert set(first.test.tolist()) != set(other.test.tolist())


def test_the_test_part_does_not_hang_on_the_validation_fraction():
    first, other = (split(LABELS, CLASSES, "pets", **BOTH | {"validation": share}) for share in (0.1, 0.3))
    np.testing.assert_array_equal(first.test, other.test)


def test_more_images_leave_most_others_where_they_were():
    keys = [f"{CLASSES[label]}/{number}.jpg" for number, label in enumerate(LABELS)]
    before = split(LABELS, CLASSES, "pets", keys=keys, **BOTH)
    added = [f"cat/new {number}.jpg" for number in range(20)]
    labels = np.concatenate([np.zeros(20, np.int64), LABELS])
    after = split(labels, CLASSES, "pets", keys=added + keys, **BOTH)
    trained_on = {keys[position] for position in before.train}
    tested_now = {(added + keys)[position] for position in after.test}
    assert len(tested_now & trained_on) <= 2  # of 24


def test_equal_keys_of_a_class_stay_together():
    labels = np.repeat([0, 1], 60)
    keys = [f"{label} {number % 20}" for number, label in enumerate(labels)]  # three times each
    parts = split(labels, ("cat", "dog"), "pets", keys=keys, **BOTH)
    seen = [{keys[position] for position in part} for part in (parts.train, parts.validation, parts.test)]
    assert sum(map(len, seen)) == len(set(keys))
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [90, 12, 18]


def test_a_class_of_equal_keys_is_split_all_the_same():
    parts = split(np.repeat([0, 1], 5), ("cat", "dog"), "pets", keys=["same"] * 10, **BOTH)
    assert all(len(part) >= 2 for part in (parts.train, parts.validation, parts.test))


@pytest.mark.parametrize(("validation", "test", "empty"), [(None, 0.2, "validation"), (0.2, None, "test")])
def test_a_part_that_is_given_elsewhere_is_not_split_off(validation, test, empty):
    parts = split(LABELS, CLASSES, "pets", seed=0, validation=validation, test=test)
    assert len(getattr(parts, empty)) == 0
    assert len(parts.train) + len(parts.validation) + len(parts.test) == len(LABELS)


@pytest.mark.parametrize(
    ("labels", "fractions", "message"),
    [
        (
            [0, 0, 0, 1, 1],
            (0.1, 0.15),
            r"pets: a split needs at least 3 images of every class, got fewer of 'dog \(2\)'",
        ),
        ([0, 0, 0, 1], (0.1, None), r"at least 2 images.*'dog \(1\)'"),
        ([0, 0, 0], (None, None), r"at least 1 images.*'dog \(0\)'"),
    ],
)
def test_a_class_too_small_for_its_parts_is_named(labels, fractions, message):
    validation, test = fractions
    with pytest.raises(DataError, match=message):
        split(np.array(labels), ("cat", "dog"), "pets", seed=0, validation=validation, test=test)


def test_a_large_fraction_leaves_an_image_to_train():
    parts = split(np.repeat([0, 1], 5), ("cat", "dog"), "pets", seed=0, validation=0.99, test=0.99)
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [2, 2, 6]


def test_names_that_are_no_text_are_ordered_too():
    assert sorted(order(["\udcff.jpg", "a.jpg"], 0).tolist()) == [0, 1]


def pictures(count: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    return Split(rng.integers(0, 256, (count, 4, 4, 1), np.uint8), np.arange(count) % 2)


def test_repeats_of_any_held_out_image_are_dropped():
    train, validation, test = pictures(6, 0), pictures(3, 1), pictures(3, 2)
    train.images[1], train.images[4] = validation.images[2], test.images[0]
    kept, dropped = without_repeats(train, validation.images, test.images)
    assert dropped == 2
    np.testing.assert_array_equal(kept.images, train.images[[0, 2, 3, 5]])
    assert kept.labels.tolist() == [0, 0, 1, 1]


def test_a_class_whose_images_are_all_repeats_is_refused():
    train, validation = pictures(4, 0), pictures(2, 1)
    train.images[[1, 3]] = validation.images[0]
    with pytest.raises(DataError, match=r"pets: no training images of 'dog'"):
        training_data(
            train,
            validation,
            pictures(2, 2).images,
            classes=("cat", "dog"),
            preprocessing="colour",
            origin="pets",
            sha256="",
            limit=None,
        )


def test_facts_count_what_is_trained_on():
    data = training_data(
        pictures(6, 0),
        pictures(4, 1),
        pictures(2, 2).images,
        classes=("cat", "dog"),
        preprocessing="colour",
        origin="pets",
        sha256="ab",
        limit=3,
    )
    assert data.facts == {
        "source": "pets",
        "sha256": "ab",
        "counts": {"train": {"cat": 2, "dog": 1}, "validation": {"cat": 2, "dog": 1}},
        "dropped_duplicates": 0,
        "skipped": [],
    }


def test_some_of_every_class_in_proportion():
    labels = np.repeat([0, 1, 2], [600, 300, 4])
    chosen = some_of_every(labels, 90, seed=0, at_least=3)
    assert np.bincount(labels[chosen]).tolist() == [60, 30, 3]
    assert np.unique(chosen).size == chosen.size
    np.testing.assert_array_equal(chosen, some_of_every(labels, 90, seed=0, at_least=3))
    np.testing.assert_array_equal(some_of_every(labels, 10_000, seed=0, at_least=3), np.arange(904))
