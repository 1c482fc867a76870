"""SHAP values of a picture, found by asking the served model about parts of it. Needs the package shap."""

from __future__ import annotations

import numpy as np

from serving.client.base import BaseClient
from serving.client.results import Bytes, Floats

EVALUATIONS = 500
_AT_ONCE = 64  # parts of the picture asked about in one call of the client


def shap_values(
    client: BaseClient, view: Bytes, *, evaluations: int = EVALUATIONS, version: int | None = None
) -> Floats:
    """How much each pixel of what the model sees adds to the probability of every class.

    The model is a black box here: parts of the view are covered, by black where it is grey, else by its mean colour,
    and Owen values, SHAP values that respect the halving of the picture, say what each part is worth.

    Args:
        client: asks the model.
        view: uint8 (h, w) or (h, w, 3), `View.image` of `BaseClient.preprocess`.
        evaluations: how many covered views to ask about; more of them show finer parts.
        version: the version to ask; default as for `predict`.

    Returns:
        float32 (C, h, w), signed; over all pixels they sum up to the probability less that of the covered view.

    Raises:
        ImportError: shap is not installed.
        ServingError: as `BaseClient.predict_views`.

    Source: Lundberg and Lee, 2017, https://arxiv.org/abs/1705.07874; `shap.PartitionExplainer`.
    """
    try:
        import shap
    except ImportError as error:
        raise ImportError("SHAP values need the package shap, which is not installed: pip install shap") from error
    picture = view.reshape(*view.shape[:2], -1)
    covered = np.zeros_like(picture) if view.ndim == 2 else np.broadcast_to(picture.mean(axis=(0, 1)), picture.shape)

    def probabilities(parts: Bytes) -> Floats:
        views = np.rint(parts).astype(np.uint8).reshape(-1, *view.shape)
        return np.stack([one.probabilities for one in client.predict_views(views, version=version)])

    explainer = shap.PartitionExplainer(probabilities, shap.maskers.Image(covered.astype(np.uint8), picture.shape))
    found = explainer(picture[None], max_evals=evaluations, batch_size=_AT_ONCE, silent=True)
    values: Floats = np.moveaxis(found.values[0].sum(axis=2), -1, 0).astype(np.float32)
    return values
