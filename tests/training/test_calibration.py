"""Temperature scaling on logits whose right temperature is known, and on a net."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from training.augment import to_model_input
from training.calibration import HIGHEST, LOWEST, calibrate, divide_logits, fit_temperature, measure
from training.datasets import Split


def drawn(temperature: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from softmax(logits / temperature)."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (count, 4))
    gumbel = generator.gumbel(size=logits.shape)
    return logits, np.argmax(logits / temperature + gumbel, axis=1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_is_found(temperature):
    logits, labels = drawn(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.04)


def test_the_temperature_has_bounds():
    logits = np.eye(3) * 2
    assert fit_temperature(logits, np.arange(3)) == pytest.approx(LOWEST)  # never wrong
    assert fit_temperature(logits, (np.arange(3) + 1) % 3) == pytest.approx(HIGHEST)  # never right


def test_measures_of_known_probabilities():
    # right with 0.8, wrong with 0.8
    found = measure(np.log([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1]))
    assert found["negative_log_likelihood"] == pytest.approx(-(np.log(0.8) + np.log(0.2)) / 2)
    assert found["expected_calibration_error"] == pytest.approx(0.3)  # one bin: half right, confidence 0.8
    assert found["brier_score"] == pytest.approx((2 * 0.2**2 + 2 * 0.8**2) / 2)


def test_a_certain_mistake_is_finite():
    found = measure(np.array([[0.0, 2000.0]]), np.array([0]))
    assert np.isfinite(list(found.values())).all()
    assert found["brier_score"] == pytest.approx(2.0)


def small_net() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Dense(5, name="logits")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Activation("softmax")(x))


def test_calibrating_leaves_the_predictions_and_mends_the_likelihood():
    model = small_net()
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (600, 8, 8, 1), np.uint8)
    sent = np.asarray(to_model_input(images.astype(np.float32), 8))
    before = model.predict(sent, verbose=0)
    # twice as sure of itself as it may be
    labels = np.argmax(np.log(before) / 2 + generator.gumbel(size=before.shape), axis=1)
    split = Split(images, labels)
    told = calibrate(model, split, "tf")
    after = model.predict(sent, verbose=0)
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))
    found = measure(np.log(after), split.labels)
    assert found == pytest.approx(told["after"], rel=1e-3)
    assert told["after"]["negative_log_likelihood"] < told["before"]["negative_log_likelihood"]
    assert told["fitted_on"] == "600 validation images"
    assert 1.3 < told["temperature"] < 3.0
    assert fit_temperature(np.log(after), split.labels) == pytest.approx(1.0, rel=1e-3)


def test_dividing_logits_divides_weights_and_biases():
    model = small_net()
    model.get_layer("logits").bias.assign(np.arange(5.0))
    logits = keras.Model(model.input, model.get_layer("logits").output)
    sent = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)
    before = np.asarray(logits(sent))
    divide_logits(model, 4.0)
    np.testing.assert_allclose(logits(sent), before / 4, rtol=1e-5)
