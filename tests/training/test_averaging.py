"""Averages of weights: as defined, left beside the weights, and measured with statistics of their own."""

from __future__ import annotations

import keras
import numpy as np

from training.averaging import AveragingAdamW, recompute_statistics


def net() -> keras.Model:
    inputs = {"pixels": keras.Input((4,), name="pixels"), "targets": keras.Input((1,), name="targets")}
    x = keras.layers.Dense(3, kernel_initializer=keras.initializers.Identity())(inputs["pixels"])
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return keras.Model(inputs, keras.layers.Dense(1)(x))


def data(n: int = 64) -> tuple[dict[str, np.ndarray], np.ndarray]:
    generator = np.random.default_rng(0)
    pixels, targets = generator.normal(3, 2, (n, 4)).astype("float32"), generator.normal(0, 1, (n, 1)).astype("float32")
    return {"pixels": pixels, "targets": targets}, targets


def test_it_averages_over_the_steps_and_leaves_the_weights_alone():
    keras.utils.set_random_seed(1)
    model, (x, y) = net(), data()
    optimizer = AveragingAdamW(0.05, ema_momentum=0.8)
    model.compile(optimizer, "mse")
    seen = []
    for _ in range(4):  # one step each
        model.fit(x, y, batch_size=64, verbose=0, shuffle=False)
        seen.append([np.array(v) for v in model.trainable_variables])
    expected = seen[0]
    for weights in seen[1:]:
        expected = [0.8 * e + 0.2 * w for e, w in zip(expected, weights, strict=True)]
    for average, e in zip(optimizer.averages(), expected, strict=True):
        np.testing.assert_allclose(average, e, rtol=1e-4, atol=1e-6)
    assert not np.allclose(optimizer.averages()[0], model.trainable_variables[0], rtol=1e-3)


def test_statistics_become_the_mean_over_the_batches():
    model, (x, _) = net(), data()
    norm = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    recompute_statistics(model, model, x, batch_size=16)
    batches = x["pixels"][:, :3].reshape(4, 16, 3)
    np.testing.assert_allclose(norm.moving_mean, batches.mean(axis=(0, 1)), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, batches.var(axis=1).mean(axis=0), rtol=1e-3)
    assert norm.momentum == 0.9
