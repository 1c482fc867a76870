"""Averages of weights (Polyak & Juditsky, 1992) over the steps of training, and the batch norm statistics they need."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

RECOMPUTE_BATCHES = 30


class AveragingAdamW(keras.optimizers.AdamW):
    """AdamW that keeps a moving average of the weights beside them, and leaves them alone.

    Keras' own `use_ema` ends every `fit` by overwriting the weights with the average, from which the next would go on.
    """

    def __init__(self, *args, ema_momentum: float, **kwargs):
        super().__init__(*args, use_ema=True, ema_momentum=ema_momentum, **kwargs)

    def finalize_variable_values(self, var_list):
        pass

    def averages(self) -> list[np.ndarray]:
        """The averages, in the order of the trainable variables."""
        return [ops.convert_to_numpy(variable) for variable in self._model_variables_moving_average]


def recompute_statistics(
    model: keras.Model, trainer: keras.Model, inputs: Mapping[str, np.ndarray], batch_size: int
) -> None:
    """Sets the moving statistics of every batch norm to their mean over some batches (Izmailov et al., 2018,
    https://arxiv.org/abs/1803.05407, section 3.2): averaged weights have other statistics than any before them.

    The images are augmented as in training. On plain ones the shipped model lost 0.3 points of validation accuracy.

    Args:
        model: holds the batch norms, changed in place.
        trainer: takes `inputs` through augmentation to the same layers.
        inputs: the training set in random order, as the trainer's fit takes it.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for number in range(min(RECOMPUTE_BATCHES, -(-len(inputs["pixels"]) // batch_size))):
        for layer in norms:
            layer.momentum = number / (number + 1)  # the mean of all batches so far
        batch = slice(number * batch_size, (number + 1) * batch_size)
        trainer({name: values[batch] for name, values in inputs.items()}, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
