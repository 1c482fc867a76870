"""The faster gradients against TensorFlow's own, for every kind of convolution, and what they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from training.input_gradients import fast_input_gradients

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 9, 8, 6)).astype(np.float32)


def kernel(*shape: int) -> tf.Tensor:
    return tf.constant(RNG.normal(size=shape), tf.float32)


PLAIN = {
    "1x1": (kernel(1, 1, 6, 5), {"strides": 1, "padding": "VALID"}),
    "1x1, same": (kernel(1, 1, 6, 5), {"strides": 1, "padding": "SAME"}),
    "1x1, strides 2": (kernel(1, 1, 6, 5), {"strides": 2, "padding": "VALID"}),
    "3x3": (kernel(3, 3, 6, 5), {"strides": 1, "padding": "SAME"}),
    "3x3, strides 2": (kernel(3, 3, 6, 5), {"strides": 2, "padding": "SAME"}),
    "3x3, padded by hand": (kernel(3, 3, 6, 5), {"strides": 2, "padding": [[0, 0], [0, 1], [0, 1], [0, 0]]}),
}
DEPTHWISE = {
    "3x3": (kernel(3, 3, 6, 1), {"strides": [1, 1, 1, 1], "padding": "SAME"}),
    "5x3": (kernel(5, 3, 6, 1), {"strides": [1, 1, 1, 1], "padding": "SAME"}),
    "valid": (kernel(3, 3, 6, 1), {"strides": [1, 1, 1, 1], "padding": "VALID"}),
    "even": (kernel(2, 2, 6, 1), {"strides": [1, 1, 1, 1], "padding": "SAME"}),
    "multiplier": (kernel(3, 3, 6, 2), {"strides": [1, 1, 1, 1], "padding": "SAME"}),
    "strides 2": (kernel(3, 3, 6, 1), {"strides": [1, 2, 2, 1], "padding": "SAME"}),
}


def check(convolve) -> set[str]:
    """Holds the gradient of a function of `convolve` against TensorFlow's own; returns the ops that it is made of."""

    @tf.function(autograph=False)
    def own(images):
        return tf.gradients(tf.sin(convolve(images)), images)[0]

    @tf.function(autograph=False)
    def fast(images):
        with fast_input_gradients():
            convolved = convolve(images)
        return tf.gradients(tf.sin(convolved), images)[0]

    np.testing.assert_allclose(fast(IMAGES), own(IMAGES), atol=1e-5)
    return {op.type for op in fast.get_concrete_function(IMAGES).graph.get_operations()}


@pytest.mark.parametrize("kind", PLAIN)
def test_convolutions(kind):
    weights, options = PLAIN[kind]
    ops = check(lambda images: tf.nn.conv2d(images, weights, **options))
    assert ("Conv2DBackpropInput" in ops) == (kind not in ("1x1", "1x1, same"))


@pytest.mark.parametrize("kind", DEPTHWISE)
def test_depthwise_convolutions(kind):
    weights, options = DEPTHWISE[kind]
    ops = check(lambda images: tf.nn.depthwise_conv2d(images, weights, **options))
    assert ("DepthwiseConv2dNativeBackpropInput" in ops) == (kind not in ("3x3", "5x3"))
