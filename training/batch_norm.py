"""Batch norm in one operation while training on TensorFlow.

Keras calculates it in some ten operations, forward and back, each of which goes through memory once. On a CPU they take
half of a step of MobileNetV2. Other backends' compilers fuse them by themselves.
"""

from __future__ import annotations

import keras
from keras import ops


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras' own over the last axis of images (N, H, W, C), with scale and offset, as all our backbones have it.

    The same numbers as Keras' to a rounding, in the gradients and moving statistics too. A frozen one, and inference,
    are Keras' own.
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf  # this layer is only built where it is the backend

        found = tf.raw_ops.FusedBatchNormV3(
            x=ops.cast(inputs, "float32"),  # as Keras does under mixed precision
            scale=self.gamma,
            offset=self.beta,
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        count = ops.cast(ops.prod(ops.shape(inputs)[:-1]), "float32")
        variance = found.batch_variance * ((count - 1) / count)  # Keras keeps the biased one
        for moving, value in ((self.moving_mean, found.batch_mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + value * (1 - self.momentum))
        return ops.cast(found.y, self.compute_dtype)


def with_fused_batch_norms(model: keras.Model) -> keras.Model:
    """A model as `model`, with new weights in the same order; on TensorFlow its batch norms train in one operation.

    For training alone: what is saved is built of Keras' layers.
    """
    if keras.backend.backend() != "tensorflow":
        return model
    return keras.models.clone_model(model, clone_function=_fused)


def _fused(layer: keras.layers.Layer) -> keras.layers.Layer:
    norm = type(layer) is keras.layers.BatchNormalization
    return (FusedBatchNormalization if norm else type(layer)).from_config(layer.get_config())
