"""How honest: whether a class given 80 % is right 80 times of 100; on the test, before and after the temperature."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.calibration import BINS, measure


def reliability(probabilities: np.ndarray, labels: np.ndarray, temperature: float | None) -> dict[str, Any]:
    """Measures served probabilities, and what they would be without the temperature that training baked in.

    softmax(logits / T) to the power of T, normalised, is softmax(logits): the served probabilities are enough.

    Args:
        probabilities: float (N, C), as served.
        labels: int (N,).
        temperature: T, of the version's manifest; None where it has none.

    Returns:
        temperature; `served`, and `without_temperature` (None where there is none): each what
        `training.calibration.measure` says, mean_confidence, accuracy, and `bins` (see `bins_of`).
    """
    log_probabilities = np.log(np.maximum(probabilities.astype(np.float64), 1e-38))
    return {
        "temperature": temperature,
        "served": _measured(log_probabilities, labels),
        "without_temperature": None if temperature is None else _measured(log_probabilities * temperature, labels),
    }


def bins_of(probabilities: np.ndarray, labels: np.ndarray) -> list[dict[str, float]]:
    """The images by confidence in bins of equal width (Guo et al., 2017, section 2), without the empty ones.

    Returns:
        low, high: of the bin, 0..1; images; confidence: mean; accuracy.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    numbers = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        {
            "low": number / BINS,
            "high": (number + 1) / BINS,
            "images": int((numbers == number).sum()),
            "confidence": float(confidence[numbers == number].mean()),
            "accuracy": float(right[numbers == number].mean()),
        }
        for number in np.unique(numbers).tolist()
    ]


def _measured(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    return measure(logits, labels) | {
        "mean_confidence": float(probabilities.max(axis=1).mean()),
        "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
        "bins": bins_of(probabilities, labels),
    }
