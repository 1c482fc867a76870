"""The same net with random weights: an explanation of what was learned must look otherwise there.

Source: Adebayo et al., 2018, https://arxiv.org/abs/1810.03292, section 3: model parameter randomisation.
"""

from __future__ import annotations

import keras
import numpy as np

_NORM = keras.layers.BatchNormalization


def randomised(
    model: keras.Model, images: np.ndarray, layers: tuple[str, ...] | None = None, seed: int = 0
) -> keras.Model:
    """A copy whose weights are drawn from normal distributions with the mean and spread of the trained ones.

    The statistics of its batch norms are measured anew, layer after layer: with those of the trained net signals would
    die out or explode, and the maps would show rounding.

    Args:
        model: trained; it is left as it is.
        images: float32 (N, S, S, 3), as the model takes them, on which the statistics are measured.
        layers: only these; None: all.
        seed: of the weights.

    Raises:
        ValueError: the model has no such layer.
    """
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    generator = np.random.default_rng(seed)
    chosen = copy.layers if layers is None else [copy.get_layer(name) for name in layers]
    for layer in chosen:
        layer.set_weights([generator.normal(w.mean(), w.std(), w.shape) for w in layer.get_weights()])
    norms = [layer for layer in chosen if isinstance(layer, _NORM)]
    if norms:
        for norm in norms:
            norm.momentum = 0.0  # the statistics become those of the one batch
            norm.trainable = True  # else it would keep them
        copy(images, training=True)
    return copy
