"""Nets of a few layers, for experiments that take minutes and pictures that can be read."""

from __future__ import annotations

import keras
from keras import layers


def tiny_vgg(input_tensor: keras.KerasTensor) -> keras.Model:
    """The net of CNN Explainer (Wang et al., 2020, https://arxiv.org/abs/2004.15004), with its names of the layers.

    Two blocks of two unpadded 3x3 convolutions with 10 filters and a 2x2 max-pooling: from (N, 64, 64, 3) to
    (N, 13, 13, 10). It flattens what comes out, so its logits know positions.
    """
    x = input_tensor
    for block in (1, 2):
        for number in (1, 2):
            x = layers.Conv2D(10, 3, name=f"conv_{block}_{number}")(x)
            x = layers.ReLU(name=f"relu_{block}_{number}")(x)
        x = layers.MaxPooling2D(2, name=f"max_pool_{block}")(x)
    return keras.Model(input_tensor, x, name="tiny_vgg")


def mini_cnn(input_tensor: keras.KerasTensor) -> keras.Model:
    """Three 3x3 convolutions with batch norms, of 32, 64 and 128 filters: from (N, S, S, 3) to (N, S/4, S/4, 128)."""
    x = input_tensor
    for number, filters in enumerate((32, 64, 128), start=1):
        if number > 1:
            x = layers.MaxPooling2D(2, name=f"max_pool_{number - 1}")(x)
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv_{number}")(x)
        x = layers.BatchNormalization(name=f"bn_{number}")(x)
        x = layers.ReLU(name=f"relu_{number}")(x)
    return keras.Model(input_tensor, x, name="mini_cnn")
