"""SHAP values of the pixels, as the package shap finds them: signed, in all what the image adds to a logit."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from training.explanation.errors import ExplanationError
from training.explanation.network import Network
from training.extras import INSTALL

PACKAGE = "shap"


def shap(network: Network, images: np.ndarray, class_ids: np.ndarray, samples: int = 100, seed: int = 0) -> np.ndarray:
    """Expected gradients: (x - x') dy/dx at points between x and the background x', averaged, summed over colours.

    They estimate SHAP values: how much each pixel adds to the logit, beyond its mean over the background.

    Args:
        network: with a `background`, images that stand for what else there is.
        images: float32 (N, S, S, 3), as the model takes them.
        class_ids: int (N,), whose logit it is.
        samples: points for each image.
        seed: the same points for every image, and every time.

    Returns:
        float32 (N, S, S), signed.

    Raises:
        ExplanationError: the network has no background, or the package shap is not installed.

    Source: Lundberg and Lee, 2017, https://arxiv.org/abs/1705.07874; expected gradients: Erion et al., 2019,
    https://arxiv.org/abs/1906.10670, equation 3. `shap.GradientExplainer`.
    """
    if network.background is None:
        raise ExplanationError("shap compares with a background: expected a network that has one, got none")
    try:
        from shap import GradientExplainer
    except ImportError as error:
        raise ExplanationError(f"shap needs the package shap, which is not installed: {INSTALL}") from error
    model = keras.Model(network.to_logits.input, network.to_logits.output)
    model.call = tf.function(model.call)  # shap calls it eagerly, once an image: that took most of the time
    explainer = GradientExplainer(model, network.background, batch_size=min(samples, network.batch))
    with _quiet():
        found = [
            explainer.shap_values(
                image[None], nsamples=samples, ranked_outputs=asked, output_rank_order="custom", rseed=seed
            )
            for image, asked in zip(images, class_ids[:, None, None], strict=True)
        ]
    return np.concatenate([values[..., 0].sum(axis=-1) for values, _ in found]).astype(np.float32)


@contextmanager
def _quiet() -> Iterator[None]:
    """shap calls the model with a list of one input, traces it once a class, and seeds numpy's global generator: the
    first two are meant, and the last is undone."""
    logger, before = logging.getLogger("tensorflow"), np.random.get_state()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The structure of `inputs`", UserWarning, module=keras.__name__)
            yield
    finally:
        logger.setLevel(level)
        np.random.set_state(before)
