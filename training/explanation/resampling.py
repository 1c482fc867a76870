"""Maps at another resolution, each value where it was."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def at_size(maps: np.ndarray, size: int) -> np.ndarray:
    """Maps (N, h, w) resampled to float32 (N, size, size): linearly between the centres of cells, averaged where finer.

    Example:
        >>> at_size(np.array([[[0.0, 1.0], [0.0, 1.0]]], "float32"), 4)[0, 0]
        array([0.  , 0.25, 0.75, 1.  ], dtype=float32)
    """
    return tf.image.resize(maps[..., None], (size, size), antialias=True)[..., 0].numpy()
