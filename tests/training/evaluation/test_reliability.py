"""Calibration on the test: bins by hand, and the temperature undone."""

from __future__ import annotations

import numpy as np
import pytest

from training.calibration import measure
from training.evaluation.reliability import bins_of, reliability


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_bins():
    probabilities = np.array([[0.61, 0.39], [0.63, 0.37], [0.02, 0.98]])
    low, high = bins_of(probabilities, np.array([0, 1, 1]))
    assert low == pytest.approx({"low": 9 / 15, "high": 10 / 15, "images": 2, "confidence": 0.62, "accuracy": 0.5})
    assert high["accuracy"] == high["images"] == 1


def test_the_temperature_is_undone_by_the_served_probabilities_alone():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(0, 3, (200, 5)), generator.integers(0, 5, 200)
    found = reliability(softmax(logits / 1.7).astype(np.float32), labels, 1.7)
    for name, value in measure(logits, labels).items():
        assert found["without_temperature"][name] == pytest.approx(value, rel=1e-4)
    for name, value in measure(logits / 1.7, labels).items():
        assert found["served"][name] == pytest.approx(value, rel=1e-4)
    assert found["served"]["accuracy"] == found["without_temperature"]["accuracy"]


def test_a_version_without_a_temperature():
    found = reliability(np.array([[1.0, 0.0], [0.3, 0.7]]), np.array([1, 1]), None)
    assert found["without_temperature"] is None
    assert np.isfinite(found["served"]["negative_log_likelihood"])
