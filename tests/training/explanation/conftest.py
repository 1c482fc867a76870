"""Small nets with weights as after training, and images for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from nets import trained_looking
from shipped import SHIPPED, VERSION

from training import manifest
from training.datasets.fashion_mnist import CLASSES
from training.explanation.network import Network
from training.explanation.version import Version, open_version
from training.export import write_saved_model
from training.model import build_classifier
from training.preprocessing import View

layers = keras.layers


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
    return trained_looking(keras.Model(inputs, layers.Activation("softmax")(logits), name="small"))


@pytest.fixture
def small_net() -> Callable[..., keras.Model]:
    """A new one a call, so that a test may change its weights."""
    return build_small_net


@pytest.fixture(scope="session")
def network(images) -> Network:
    """In batches that do not divide the images."""
    return Network(build_small_net(pooled=False), "cam", batch=16, background=images[30:])


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (50, 16, 16, 3)).astype("float32")


@pytest.fixture(scope="session")
def class_ids(images) -> np.ndarray:
    return np.arange(len(images)) % 4


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder of models: fashion_mnist with a small net as version 1, and version 2 with its manifest alone."""
    base_path = tmp_path_factory.mktemp("models") / "fashion_mnist"
    model = trained_looking(build_classifier("mini_cnn", len(CLASSES), 32, dropout=0.1, batch_norm_momentum=0.9))
    write_saved_model(model, CLASSES, base_path / "1", "relu_3", View())
    for number in (1, 2):
        directory = base_path / str(number)
        (directory / "assets.extra").mkdir(parents=True)
        if number == 1:
            model.save(directory / "assets.extra" / "model.keras")
        described = {
            "name": "fashion_mnist",
            "version": number,
            "classes": list(CLASSES),
            "cam_layers": ["relu_3"],
            "backbone": "mini_cnn",
            "preprocessing": "fashion_mnist: 28x28 grey, light object on black",
            "view": {"size": 28, "channels": 1, "scaling": "tf"},
            "training": {"dataset": "fashion_mnist"},
        }
        manifest.write(directory, described)
    return base_path.parent


@pytest.fixture(scope="session")
def shipped() -> Version:
    return open_version(SHIPPED.parents[1], SHIPPED.parent.name, VERSION)
