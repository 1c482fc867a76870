"""Probabilities that mean what they say: temperature scaling (Guo et al., 2017, https://arxiv.org/abs/1706.04599).

The logits are divided by one number, so no prediction changes. It goes into the weights of the layer of the logits:
the Keras model, what is served and what is converted from it give the same probabilities.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from training.augment import to_model_input
from training.backbones import Scaling
from training.datasets import Split
from training.model import LOGITS_LAYER, logits_model

BATCH = 250
LOWEST, HIGHEST = 0.05, 20.0  # a net that knows nothing would want an infinite one
BINS = 15


def calibrate(model: keras.Model, validation: Split, scaling: Scaling) -> dict[str, Any]:
    """Fits a temperature on the validation images and bakes it into the model, in place.

    Returns:
        What the manifest says of it: the temperature, the images, and `measure` before and after.
    """
    to_logits = logits_model(model)
    logits = np.concatenate(
        [
            to_logits.predict_on_batch(to_model_input(batch.astype(np.float32), model.input_shape[1], scaling))
            for batch in np.array_split(validation.images, -(-len(validation) // BATCH))
        ]
    )
    temperature = fit_temperature(logits, validation.labels)
    divide_logits(model, temperature)
    return {
        "temperature": temperature,
        "fitted_on": f"{len(validation)} validation images",
        "before": measure(logits, validation.labels),
        "after": measure(logits / temperature, validation.labels),
    }


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T at which softmax(logits / T) has the lowest negative log likelihood.

    Args:
        logits: float (N, C), of images that were not trained on.
        labels: int (N,).

    Returns:
        T, between LOWEST and HIGHEST.
    """
    logits = logits.astype(np.float64)
    of_label = logits[np.arange(len(labels)), labels]
    low, high = 1.0 / HIGHEST, 1.0 / LOWEST
    for _ in range(60):  # the likelihood is convex in 1 / T; halving finds where its slope is 0
        middle = (low + high) / 2
        slope = ((_softmax(middle * logits) * logits).sum(axis=1) - of_label).mean()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return 2 / (low + high)


def divide_logits(model: keras.Model, temperature: float) -> None:
    """Divides the logits of a classifier, in place."""
    layer = model.get_layer(LOGITS_LAYER)
    layer.set_weights([weight / temperature for weight in layer.get_weights()])


def measure(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How far probabilities are from what happens, lower is better each.

    Args:
        logits: float (N, C).
        labels: int (N,).

    Returns:
        negative_log_likelihood: in nats.
        expected_calibration_error: |accuracy - confidence| over 15 bins of equal width, weighed by their images
            (Guo et al., 2017, equation 3).
        brier_score: squared distance of the probabilities from the truth, summed over classes, 0..2 (Brier, 1950).
    """
    probabilities = _softmax(logits.astype(np.float64))
    rows = np.arange(len(labels))
    truth = np.zeros_like(probabilities)
    truth[rows, labels] = 1.0
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=BINS)
    return {
        "negative_log_likelihood": float(-np.log(np.maximum(probabilities[rows, labels], 1e-300)).mean()),
        "expected_calibration_error": float(np.abs(gaps).sum() / len(labels)),
        "brier_score": float(((probabilities - truth) ** 2).sum(axis=1).mean()),
    }


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
