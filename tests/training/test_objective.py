"""The loss: equal to Keras' own where that has one, and what teachers and class weights add."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from training.objective import Objective, balanced_class_weights

LOGITS = np.random.default_rng(0).normal(0, 2, (8, 4)).astype("float32")
LABELS = np.array([0, 1, 2, 3, 0, 0, 0, 1])
TARGETS = np.eye(4, dtype="float32")[LABELS]


def loss(objective: Objective, *inputs, training: bool = True) -> float:
    passed_on = objective(LOGITS, *inputs, training=training)
    np.testing.assert_array_equal(passed_on, LOGITS)
    return float(objective.losses[0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_the_cross_entropy_of_smoothed_labels(smoothing):
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)(TARGETS, LOGITS)
    assert loss(Objective(smoothing), TARGETS) == pytest.approx(float(expected), rel=1e-5)


def test_balanced_classes_weigh_the_same():
    weights = balanced_class_weights(LABELS, 4)
    np.testing.assert_allclose(weights, [8 / 16, 8 / 8, 8 / 4, 8 / 4])
    assert sum(weights[LABELS]) == pytest.approx(8)
    each = keras.losses.categorical_crossentropy(TARGETS, LOGITS, from_logits=True)
    by_class = [np.mean(np.asarray(each)[label == LABELS]) for label in range(4)]
    assert loss(Objective(0.0, weights), TARGETS) == pytest.approx(np.mean(by_class), rel=1e-5)


def test_a_class_without_an_image_weighs_nothing():
    assert balanced_class_weights(np.array([0, 0, 2]), 3).tolist() == [0.5, 0.0, 1.0]


def test_a_teacher_that_says_the_same_costs_nothing():
    temperature = 2.0
    agreed = np.asarray(keras.ops.softmax(LOGITS / temperature))
    alone = Objective(0.0, distillation_weight=1.0, temperature=temperature)
    assert loss(alone, TARGETS, agreed) == pytest.approx(0.0, abs=1e-5)
    half = Objective(0.0, distillation_weight=0.5, temperature=temperature)
    assert loss(half, TARGETS, agreed) == pytest.approx(loss(Objective(0.0), TARGETS) / 2, rel=1e-4)


def test_the_lesson_is_the_divergence_from_the_teacher():
    temperature, told = 3.0, np.asarray(keras.ops.softmax(LOGITS[::-1]))
    learned = np.asarray(keras.ops.softmax(LOGITS / temperature))
    divergence = np.mean(np.sum(told * np.log(told / learned), axis=1))
    objective = Objective(0.0, distillation_weight=1.0, temperature=temperature)
    assert loss(objective, TARGETS, told) == pytest.approx(temperature**2 * divergence, rel=1e-3)


def test_validation_asks_no_teacher():
    objective = Objective(0.0, distillation_weight=0.5, temperature=2.0)
    assert loss(objective, TARGETS, TARGETS, training=False) == pytest.approx(loss(Objective(0.0), TARGETS), rel=1e-6)
