"""What a version sees in images, as vectors: the activations before its logits."""

from __future__ import annotations

import sys

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from training.augment import to_model_input
from training.datasets import png
from training.model import LOGITS_LAYER
from training.preprocessing import View

BATCH = 100


def features(model: keras.Model, view: View, images: np.ndarray, what: str) -> np.ndarray:
    """What goes into the logits.

    Args:
        model: of a version.
        view: the version's.
        images: uint8 (N, H, W, 1 or 3), 0..255; they are looked at as if they were sent as PNG.
        what: they are, for the progress bar.

    Returns:
        float32 (N, K).
    """
    to_features = keras.Model(model.input, model.get_layer(LOGITS_LAYER).input)
    specification = tf.TensorSpec(view.shape, tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def run(encoded):
        views = tf.map_fn(lambda one: view.of_bytes(one)[0], encoded, fn_output_signature=specification)
        return to_features(to_model_input(views, model.input_shape[1], view.scaling), training=False)

    starts = range(0, len(images), BATCH)
    return np.concatenate(
        [
            run(tf.constant([png(image) for image in images[start : start + BATCH]])).numpy()
            for start in tqdm(starts, desc=what, unit="batch", disable=not sys.stderr.isatty())
        ]
    )
