"""Gradients to the inputs of convolutions in the ops of their forward pass, which TensorFlow runs faster on a CPU.

Its own for a 1x1 and for a depthwise convolution copy and accumulate. A convolution with the transposed kernel, and a
depthwise one with the turned kernel, give the same numbers; a server turns constants once, when it loads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

_OVERRIDES = {"Conv2D": "InputOfConv2D", "DepthwiseConv2dNative": "InputOfDepthwiseConv2dNative"}
_ATTRIBUTES = ("strides", "padding", "explicit_paddings", "data_format", "dilations")


@contextlib.contextmanager
def fast_input_gradients() -> Iterator[None]:
    """In a graph: convolutions made in here are differentiated as above, with regard to their inputs alone."""
    with tf.compat.v1.get_default_graph().gradient_override_map(_OVERRIDES):
        yield


@tf.RegisterGradient(_OVERRIDES["Conv2D"])
def _conv2d(op: tf.Operation, gradient: tf.Tensor) -> tuple[tf.Tensor, None]:
    images, kernel = op.inputs
    if tuple(kernel.shape[:2]) == (1, 1) and _moves_by_one(op) and kernel.shape[2] == images.shape[3]:
        return tf.nn.conv2d(gradient, tf.transpose(kernel, (0, 1, 3, 2)), strides=1, padding="VALID"), None
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(images), filter=kernel, out_backprop=gradient, **_attributes(op)
    ), None


@tf.RegisterGradient(_OVERRIDES["DepthwiseConv2dNative"])
def _depthwise_conv2d(op: tf.Operation, gradient: tf.Tensor) -> tuple[tf.Tensor, None]:
    images, kernel = op.inputs
    height, width, _, multiplier = kernel.shape
    if multiplier == 1 and height % 2 == width % 2 == 1 and _moves_by_one(op) and op.get_attr("padding") == b"SAME":
        turned = tf.reverse(kernel, axis=[0, 1])
        return tf.nn.depthwise_conv2d(gradient, turned, strides=[1, 1, 1, 1], padding="SAME"), None
    return tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=tf.shape(images), filter=kernel, out_backprop=gradient, **_attributes(op)
    ), None


def _moves_by_one(op: tf.Operation) -> bool:
    return set(op.get_attr("strides")) == set(op.get_attr("dilations")) == {1} and op.get_attr("data_format") == b"NHWC"


def _attributes(op: tf.Operation) -> dict[str, object]:
    return {name: op.get_attr(name) for name in _ATTRIBUTES}
