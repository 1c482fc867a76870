"""ResNet18 (He et al., 2016, https://arxiv.org/abs/1512.03385, table 1), which Keras Applications lacks.

Layers are named as in Keras' ResNet50, and as there the stride of a block is that of its first convolution.
"""

from __future__ import annotations

import keras
from keras import layers

SMALL_IMAGE = 64  # pixels; up to here the stem keeps the resolution, as the paper's own nets for CIFAR-10 do
_FILTERS = (64, 128, 256, 512)
_BLOCKS = 2  # a stage


def resnet18(input_tensor: keras.KerasTensor) -> keras.Model:
    """From (N, S, S, 3) to (N, S/8, S/8, 512) for images of at most 64 px, else (N, S/32, S/32, 512)."""
    if input_tensor.shape[1] <= SMALL_IMAGE:
        x = _normalised(input_tensor, 64, kernel=3, stride=1, name="conv1")
        x = layers.ReLU(name="conv1_relu")(x)
    else:
        x = _normalised(input_tensor, 64, kernel=7, stride=2, name="conv1")
        x = layers.ReLU(name="conv1_relu")(x)
        x = layers.MaxPooling2D(3, strides=2, padding="same", name="pool1")(x)
    for stage, filters in enumerate(_FILTERS, start=2):
        for block in range(1, _BLOCKS + 1):
            stride = 2 if stage > 2 and block == 1 else 1
            x = _basic_block(x, filters, stride, name=f"conv{stage}_block{block}")
    return keras.Model(input_tensor, x, name="resnet18")


def _basic_block(x: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    """Two 3x3 convolutions beside a shortcut, which is projected where the shape changes (option B)."""
    shortcut = x
    if stride > 1 or x.shape[-1] != filters:
        shortcut = _normalised(x, filters, kernel=1, stride=stride, name=f"{name}_0")
    x = _normalised(x, filters, kernel=3, stride=stride, name=f"{name}_1")
    x = layers.ReLU(name=f"{name}_1_relu")(x)
    x = _normalised(x, filters, kernel=3, stride=1, name=f"{name}_2")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.ReLU(name=f"{name}_out")(x)


def _normalised(x: keras.KerasTensor, filters: int, kernel: int, stride: int, name: str) -> keras.KerasTensor:
    x = layers.Conv2D(
        filters, kernel, strides=stride, padding="same", use_bias=False,
        kernel_initializer="he_normal", name=f"{name}_conv",
    )(x)  # fmt: skip
    return layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(x)
