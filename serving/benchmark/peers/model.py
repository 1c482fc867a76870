"""What all peers share: the shipped weights as a Keras model, and the preprocessing that such projects do with PIL."""

from __future__ import annotations

import io
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from PIL import Image

VERSION = Path(os.environ["BENCHMARK_VERSION"])
SIZE = 96


def load() -> keras.Model:
    """The trainable model of the version directory."""
    return keras.models.load_model(VERSION / "assets.extra/model.keras", compile=False)


def to_input(image: Image.Image) -> np.ndarray:
    """A picture as the model takes it: float32 (96, 96, 3), -1..1."""
    grey = image.convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    values = np.asarray(grey, np.float32) / 127.5 - 1.0
    return np.repeat(values[..., None], 3, axis=-1)


def decode(data: bytes) -> np.ndarray:
    """An encoded picture as the model takes it."""
    return to_input(Image.open(io.BytesIO(data)))


def compiled(model: keras.Model):
    """The model as one `tf.function`, for any batch size, run once."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32)])
    def run(images):
        return model(images, training=False)

    run(np.zeros((1, SIZE, SIZE, 3), np.float32))
    return run
