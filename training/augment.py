"""Augmentation and input scaling as Keras layers, part of the compiled step on any backend.

Shift and flip are linear resampling along each axis: two small matrix products augment a batch.
"""

from __future__ import annotations

import math

import keras
from keras import ops
from keras.applications.imagenet_utils import preprocess_input

from training.backbones import Scaling


class ShiftAndFlip(keras.layers.Layer):
    """Random shift by up to `padding` pixels (a crop of the zero-padded image) and random horizontal flip.

    Call arguments: float32 images, (N, H, W, C). Returns: the same shape. Identity unless training.
    """

    def __init__(self, padding: int, flip: bool, seed: int, **kwargs):
        super().__init__(**kwargs)
        self.padding = padding
        self.flip = flip
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, images, training=False):
        if not training:
            return images
        batch, height, width = ops.shape(images)[0], images.shape[1], images.shape[2]
        rows = self._sampling_matrix(batch, height, flip=False)  # (N, H, H)
        columns = self._sampling_matrix(batch, width, flip=self.flip)  # (N, W, W)
        shifted = ops.einsum("nyh,nhwc->nywc", rows, images)
        return ops.einsum("nxw,nywc->nyxc", columns, shifted)

    def _sampling_matrix(self, batch, size: int, *, flip: bool):
        shift = keras.random.randint((batch, 1), -self.padding, self.padding + 1, seed=self.generator)
        source = ops.arange(size, dtype="int32")[None, :] + ops.cast(shift, "int32")  # (N, size)
        if flip:
            mirrored = keras.random.uniform((batch, 1), seed=self.generator) < 0.5
            source = ops.where(mirrored, size - 1 - source, source)
        # one_hot gives a row of zeros for a source outside the image: the zero padding
        return ops.one_hot(source, size, dtype="float32")


class RandomErasing(keras.layers.Layer):
    """Random erasing (Zhong et al., 2017, https://arxiv.org/abs/1708.04896): a rectangle of noise.

    Call arguments: float32 images 0..255, (N, H, W, C). Returns: the same shape. Identity unless training.
    """

    def __init__(self, probability: float, area: tuple[float, float], seed: int, aspect: float = 3.3, **kwargs):
        super().__init__(**kwargs)
        self.probability = probability
        self.area = area
        self.aspect = aspect
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, images, training=False):
        if not training:
            return images
        batch, height, width = ops.shape(images)[0], images.shape[1], images.shape[2]

        def uniform(low, high):
            return keras.random.uniform((batch, 1, 1, 1), low, high, seed=self.generator)

        area = uniform(*self.area) * height * width
        aspect = ops.exp(uniform(-1.0, 1.0) * math.log(self.aspect))
        box_height = ops.minimum(ops.sqrt(area * aspect), height)
        box_width = ops.minimum(ops.sqrt(area / aspect), width)
        top, left = uniform(0.0, 1.0) * (height - box_height), uniform(0.0, 1.0) * (width - box_width)
        y = ops.arange(height, dtype="float32")[None, :, None, None]
        x = ops.arange(width, dtype="float32")[None, None, :, None]
        inside = (y >= top) & (y < top + box_height) & (x >= left) & (x < left + box_width)
        erased = inside & (uniform(0.0, 1.0) < self.probability)  # (N, H, W, 1)
        noise = keras.random.uniform(ops.shape(images), 0.0, 255.0, seed=self.generator)
        return ops.where(erased, noise, images)


@keras.saving.register_keras_serializable(package="vitrine")
class ToModelInput(keras.layers.Layer):
    """The last step of preprocessing, the same in training, evaluation and export: resize, RGB, the backbone's scaling.

    Call arguments: images 0..255, (N, H, W, 1 or 3). Returns: float32 (N, image_size, image_size, 3), scaled.
    """

    def __init__(self, image_size: int, scaling: Scaling = "tf", **kwargs):
        super().__init__(**kwargs)
        self.image_size = image_size
        self.scaling = scaling

    def call(self, images):
        return to_model_input(images, self.image_size, self.scaling)

    def get_config(self):
        return super().get_config() | {"image_size": self.image_size, "scaling": self.scaling}


def to_model_input(images, image_size: int, scaling: Scaling = "tf"):
    """What ToModelInput does, as a function of tensors."""
    images = ops.cast(images, "float32")
    images = ops.image.resize(images, (image_size, image_size), interpolation="bilinear", data_format="channels_last")
    if images.shape[-1] == 1:
        images = ops.repeat(images, 3, axis=-1)
    return preprocess_input(images, data_format="channels_last", mode=scaling)  # (N, image_size, image_size, 3)
