"""Small nets with weights as after training, and images for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from training.explanation.network import Network
from training.explanation.version import Version, open_version

layers = keras.layers
SHIPPED = Path(__file__).resolve().parents[3] / "serving/models"


def with_weights(model: keras.Model, seed: int = 0) -> keras.Model:
    """Weights and statistics as after training: nowhere 0 or 1, biases included."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
        else:
            layer.set_weights([rng.normal(0, 0.3, weight.shape) for weight in layer.get_weights()])
    return model


def build_small_net(*, pooled: bool = True) -> keras.Model:
    """16 px, 4 classes; "cam" is a ReLU (N, 7, 7, 6), read by global average pooling or by more layers."""
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(5, 3, use_bias=False, name="conv")(inputs)
    x = layers.ReLU(name="early")(layers.BatchNormalization(name="norm")(x))
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.ReLU(name="cam")(layers.Conv2D(6, 3, padding="same", name="conv_2")(x))
    if not pooled:
        x = layers.ReLU(name="late")(layers.Conv2D(8, 3, name="conv_3")(x))
    x = layers.GlobalAveragePooling2D(name="average")(x)
    logits = layers.Dense(4, name="logits")(x)
    return with_weights(keras.Model(inputs, layers.Activation("softmax")(logits), name="small"))


@pytest.fixture
def small_net() -> Callable[..., keras.Model]:
    """A new one a call, so that a test may change its weights."""
    return build_small_net


@pytest.fixture(scope="session")
def network() -> Network:
    """In batches that do not divide the images."""
    return Network(build_small_net(pooled=False), "cam", batch=16)


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (50, 16, 16, 3)).astype("float32")


@pytest.fixture(scope="session")
def class_ids(images) -> np.ndarray:
    return np.arange(len(images)) % 4


@pytest.fixture(scope="session")
def shipped() -> Version:
    return open_version(SHIPPED, "fashion_mnist", 1)
