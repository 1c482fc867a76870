"""The methods that the library tf-keras-vis has, called as ours are: to compare with, and to choose as the engine.

It is what the tests hold ours against. Where its maps differ by design, README.md beside this file says so.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from training.explanation.errors import ExplanationError
from training.explanation.methods import Method
from training.explanation.network import Network
from training.model import logits_model

_CAMS = {
    "grad_cam": "gradcam.Gradcam",
    "grad_cam_plus_plus": "gradcam_plus_plus.GradcamPlusPlus",
    "layer_cam": "layercam.Layercam",
    "score_cam": "scorecam.Scorecam",
}
_SALIENCIES = {"saliency": 0, "smooth_grad": 20}  # the samples of each
_COPIES = 1000  # of an image, masked
NAMES = (*_CAMS, *_SALIENCIES)


def maps(method: Method, network: Network, images: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """The maps of a method as tf-keras-vis computes them, without its scaling to 0..1 and its enlargement.

    Args:
        method: an entry of METHODS.
        network: opened at a layer where the method needs one.
        images: float32 (N, S, S, 3), as the model takes them.
        class_ids: int (N,).

    Returns:
        float32 (N, h, w).

    Raises:
        ExplanationError: tf-keras-vis has no such method, or is not installed; else as Method.maps.
    """
    if method.name not in NAMES:
        raise ExplanationError(f"tf-keras-vis has no {method.name}; expected one of {', '.join(NAMES)}")
    images, class_ids = network.checked(images, class_ids)
    batch = network.batch
    if method.name == "score_cam":  # it holds the masked copies of all its images at once
        batch = max(_COPIES // network.model.get_layer(network.layer).output.shape[-1], 1)
    parts = (slice(start, start + batch) for start in range(0, len(images), batch))
    explain = _cam if method.name in _CAMS else _saliency
    with warnings.catch_warnings(), _without_progress():
        warnings.simplefilter("ignore")  # it imports from SciPy's old places, and names inputs in an old way
        return np.concatenate([explain(method.name, network, images[part], class_ids[part]) for part in parts])


def _cam(name: str, network: Network, images: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    visualization, score = _loaded(_CAMS[name], network, class_ids)
    options: dict[str, Any] = {"expand_cam": False, "normalize_cam": False, "seek_penultimate_conv_layer": False}
    return np.asarray(visualization(score, images, penultimate_layer=network.layer, **options), np.float32)


def _saliency(name: str, network: Network, images: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    visualization, score = _loaded("saliency.Saliency", network, class_ids)
    before = np.random.get_state()
    np.random.seed(0)  # it draws from numpy's global generator
    try:
        return np.asarray(
            visualization(score, images, smooth_samples=_SALIENCIES[name], normalize_map=False), np.float32
        )
    finally:
        np.random.set_state(before)


def _loaded(path: str, network: Network, class_ids: np.ndarray) -> tuple[Callable[..., np.ndarray], Any]:
    """One of its classes, over the network's logits, and its way to say which class."""
    module, _, name = path.partition(".")
    try:
        found = getattr(importlib.import_module(f"tf_keras_vis.{module}"), name)
        from tf_keras_vis.utils.scores import CategoricalScore
    except ImportError as error:
        raise ExplanationError(
            f"the engine tf-keras-vis is not installed ({error}): pip install 'tf-keras-vis==0.8.7' 'scipy<2'"
        ) from error
    return found(logits_model(network.model)), CategoricalScore(class_ids.tolist())


@contextlib.contextmanager
def _without_progress() -> Iterator[None]:
    """It predicts with Keras, which draws a bar each time."""
    wanted = keras.config.is_interactive_logging_enabled()
    keras.config.disable_interactive_logging()
    try:
        yield
    finally:
        if wanted:
            keras.config.enable_interactive_logging()
