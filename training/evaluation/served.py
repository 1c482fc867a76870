"""A version's answers to encoded images, through its served signature."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from training.datasets import Split, png

BATCH = 100


class Served:
    """A version's `serving_default`, loaded when it is first asked."""

    def __init__(self, version_dir: Path):
        self.version_dir = version_dir

    @functools.cached_property
    def signature(self) -> Callable[..., dict[str, tf.Tensor]]:
        return tf.saved_model.load(str(self.version_dir)).signatures["serving_default"]

    def ask(self, encoded: Sequence[bytes], output: str, what: str | None = None) -> np.ndarray:
        """One output for encoded images.

        Args:
            encoded: PNG or JPEG each.
            output: class_id or probabilities.
            what: is done, for a progress bar; None: without one.

        Returns:
            int64 (N,) or float32 (N, C).
        """
        starts = range(0, len(encoded), BATCH)
        return np.concatenate(
            [
                self.signature(image_bytes=tf.constant(encoded[start : start + BATCH]))[output].numpy()
                for start in tqdm(starts, desc=what, unit="batch", disable=what is None or not sys.stderr.isatty())
            ]
        )


def answers(version_dir: Path, test: Split) -> np.ndarray:
    """Runs the test images as PNG bytes through `serving_default`.

    Args:
        version_dir: a version directory.
        test: images uint8 (N, H, W, C) and labels (N,).

    Returns:
        The predicted classes, int64 (N,).
    """
    return Served(version_dir).ask([png(image) for image in test.images], "class_id", "evaluating")
