"""MixUp and CutMix as one Keras layer: images and their labels, mixed in pairs inside the compiled step."""

from __future__ import annotations

import keras
from keras import ops


class Mix(keras.layers.Layer):
    """Mixes every image with another of its batch, and their labels by the same shares.

    MixUp (Zhang et al., 2018, https://arxiv.org/abs/1710.09412): s x_i + (1 - s) x_j, y alike, s ~ Beta(alpha, alpha).
    CutMix (Yun et al., 2019, https://arxiv.org/abs/1905.04899): a rectangle of x_j in x_i, s the share that remains.
    With both every image gets one of them, by a fair coin.

    Call arguments: [images float32 (N, H, W, C), targets float32 (N, num_classes)]. Returns: the same shapes. Identity
    unless training.
    """

    def __init__(self, mixup_alpha: float, cutmix_alpha: float, seed: int, **kwargs):
        super().__init__(**kwargs)
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        images, targets = inputs
        if not training:
            return images, targets
        # batches come in random order, so the mirrored batch is a random pairing
        others, other_targets = ops.flip(images, axis=0), ops.flip(targets, axis=0)
        if self.mixup_alpha and self.cutmix_alpha:
            coin = keras.random.uniform((ops.shape(images)[0], 1, 1, 1), seed=self.generator) < 0.5
            mixed, shares = self._mixup(images, others)
            cut, cut_shares = self._cutmix(images, others)
            mixed, shares = ops.where(coin, mixed, cut), ops.where(coin[:, :, 0, 0], shares, cut_shares)
        elif self.mixup_alpha:
            mixed, shares = self._mixup(images, others)
        else:
            mixed, shares = self._cutmix(images, others)
        return mixed, shares * targets + (1.0 - shares) * other_targets

    def _mixup(self, images, others):
        shares = self._shares(images, self.mixup_alpha)  # (N, 1)
        weights = shares[:, :, None, None]
        return weights * images + (1.0 - weights) * others, shares

    def _cutmix(self, images, others):
        height, width = images.shape[1], images.shape[2]
        side = ops.sqrt(1.0 - self._shares(images, self.cutmix_alpha))  # (N, 1), of the rectangle, as a fraction
        # whole pixels, so that the label's share is the picture's
        box_height, box_width = ops.round(side * height), ops.round(side * width)
        top = ops.floor(self._uniform(images) * (height - box_height + 1.0))
        left = ops.floor(self._uniform(images) * (width - box_width + 1.0))
        y, x = ops.arange(height, dtype="float32")[None], ops.arange(width, dtype="float32")[None]
        rows, columns = (y >= top) & (y < top + box_height), (x >= left) & (x < left + box_width)  # (N, H), (N, W)
        inside = (rows[:, :, None] & columns[:, None, :])[..., None]
        return ops.where(inside, others, images), 1.0 - box_height * box_width / (height * width)

    def _shares(self, images, alpha: float):
        return keras.random.beta((ops.shape(images)[0], 1), alpha, alpha, seed=self.generator)

    def _uniform(self, images):
        return keras.random.uniform((ops.shape(images)[0], 1), seed=self.generator)
