"""What training minimises: cross-entropy on smoothed labels, weighed by class, and the distance from teachers."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops


class Objective(keras.layers.Layer):
    """Adds the loss of a batch to the model and passes the logits on.

    Cross-entropy H on smoothed labels (Szegedy et al., 2016, https://arxiv.org/abs/1512.00567), the mean weighed by
    class. With a teacher's probabilities q at temperature T (Hinton et al., 2015, https://arxiv.org/abs/1503.02531) in
    training: (1 - w) H(labels) + w T^2 (H(q, softmax(logits / T)) - H(q)).

    Call arguments: logits (N, C), targets float32 (N, C), and the teacher's probabilities (N, C) where there is one.
    Returns: the logits, float32.
    """

    def __init__(
        self,
        label_smoothing: float,
        class_weights: Sequence[float] | None = None,
        distillation_weight: float = 0.0,
        temperature: float = 1.0,
        **kwargs,
    ):
        super().__init__(dtype="float32", **kwargs)
        self.label_smoothing = label_smoothing
        self.class_weights = None if class_weights is None else np.asarray(class_weights, "float32")
        self.distillation_weight = distillation_weight
        self.temperature = temperature

    def call(self, logits, targets, taught=None, training=False):
        smoothed = targets * (1.0 - self.label_smoothing) + self.label_smoothing / targets.shape[-1]
        losses = keras.losses.categorical_crossentropy(smoothed, logits, from_logits=True)  # (N,)
        if self.class_weights is not None:
            weights = ops.matmul(targets, self.class_weights)
            losses = losses * weights / ops.mean(weights)
        if taught is not None and training:
            told = keras.losses.categorical_crossentropy(taught, logits / self.temperature, from_logits=True)
            entropy = -ops.sum(taught * ops.log(taught + 1e-8), axis=-1)
            lesson = self.temperature**2 * (told - entropy)
            losses = (1.0 - self.distillation_weight) * losses + self.distillation_weight * lesson
        self.add_loss(ops.mean(losses))
        return logits


def balanced_class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Weights by which every class counts the same: N / (C n_c), float32 (C,); 0 for a class without an image."""
    counts = np.bincount(labels, minlength=num_classes)
    return np.divide(len(labels), num_classes * counts, out=np.zeros(num_classes), where=counts > 0).astype("float32")
