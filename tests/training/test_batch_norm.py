"""The fused batch norm calculates what Keras' does, and stays out of what is saved."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.batch_norm import FusedBatchNormalization, with_fused_batch_norms
from training.model import build_classifier

GENERATOR = np.random.default_rng(0)


def pair(**options) -> tuple[keras.layers.Layer, keras.layers.Layer]:
    """Keras' and ours with the same weights, some way from the initial ones."""
    layers = keras.layers.BatchNormalization(**options), FusedBatchNormalization(**options)
    weights = [GENERATOR.uniform(0.5, 2, 6).astype("float32") for _ in range(4)]
    for layer in layers:
        layer.build((None, 5, 5, 6))
        layer.set_weights(weights)
    return layers


@pytest.mark.parametrize("shape", [(8, 5, 5, 6), (2, 1, 1, 6), (1, 7, 3, 6)])
def test_a_step_is_keras_own(shape):
    x = GENERATOR.normal(3, 2, shape).astype("float32")
    weighting = GENERATOR.normal(0, 1, shape).astype("float32")
    found = []
    for layer in pair(momentum=0.9, epsilon=1e-3):
        inputs = tf.Variable(x)
        with tf.GradientTape() as tape:
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(outputs * weighting)
        gradients = tape.gradient(loss, [inputs, layer.gamma.value, layer.beta.value])
        found.append([outputs, *gradients, layer.moving_mean.value, layer.moving_variance.value])
    for keras_own, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("frozen", [False, True])
def test_inference_and_a_frozen_layer_are_keras_own(frozen):
    x = GENERATOR.normal(3, 2, (4, 5, 5, 6)).astype("float32")
    keras_own, ours = pair()
    keras_own.trainable = ours.trainable = not frozen
    before = [np.array(weight) for weight in ours.weights]
    np.testing.assert_array_equal(ours(x, training=frozen), keras_own(x, training=frozen))
    for weight, unchanged in zip(ours.weights, before, strict=True):
        np.testing.assert_array_equal(weight, unchanged)


def test_mixed_precision_keeps_its_type_and_calculates_in_float32():
    x = GENERATOR.normal(3, 2, (4, 5, 5, 6)).astype("float32")
    keras_own, ours = (layer(x, training=True) for layer in pair(dtype="mixed_bfloat16"))
    assert ours.dtype == keras_own.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(ours, tf.float32), tf.cast(keras_own, tf.float32), rtol=1e-2)


def test_a_model_keeps_its_weights_in_order_and_its_names():
    model = build_classifier("mobilenet_v2", 10, 32, 0.2, 0.97)
    fused = with_fused_batch_norms(model)
    assert [layer.name for layer in fused.layers] == [layer.name for layer in model.layers]
    norms = [layer for layer in fused.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 52
    assert {(type(layer), layer.momentum) for layer in norms} == {(FusedBatchNormalization, 0.97)}
    fused.set_weights(model.get_weights())
    x = GENERATOR.uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(fused(x, training=False), model(x, training=False))


def test_other_backends_keep_keras_own(monkeypatch):
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.BatchNormalization()])
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert with_fused_batch_norms(model) is model
