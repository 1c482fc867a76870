"""Class names in order of their id, learned from the model itself.

`classify` gives names and scores best first, `serving_default` gives probabilities in order of the id: for the
same picture the two join to a list of names. The join needs probabilities that can be told apart, so it is tried on
small generated pictures until one separates them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from serving.client.errors import BadResponse
from serving.client.results import Floats

_PROBES = 8
_CLOSE = 1e-3  # relative; the two runs may differ in the last bits
_APART = 1e-2


def probes() -> Iterator[bytes]:
    """Small grey PNG pictures, always the same: a disc, then patches of noise."""
    yy, xx = np.mgrid[:28, :28]
    yield _png(np.where((yy - 14) ** 2 + (xx - 14) ** 2 < 90, 200, 0))
    rng = np.random.default_rng(0)
    for _ in range(_PROBES - 1):
        coarse = rng.integers(0, 256, (4, 4))
        yield _png(np.pad(np.kron(coarse, np.ones((5, 5))), 4))


def join(probabilities: Floats, names: Sequence[str], scores: Floats) -> tuple[str, ...] | None:
    """Names in order of the id; None when this picture does not tell the classes apart.

    Args:
        probabilities: (C,) in order of the id.
        names: C names, best first.
        scores: (C,) their scores, best first, ties by the lower id.

    Raises:
        BadResponse: the two answers cannot belong to the same model.
    """
    if not len(probabilities) == len(names) == len(scores):
        raise BadResponse(
            f"the model gives {len(probabilities)} probabilities, but {len(names)} names and {len(scores)} scores"
        )
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    if not np.allclose(ranked, scores, rtol=_CLOSE, atol=1e-7):
        raise BadResponse("the signatures serving_default and classify do not agree on the same picture")
    separated = bool(np.all(ranked[:-1] - ranked[1:] > _APART * ranked[:-1]))
    if not separated and not np.array_equal(ranked, scores):
        return None
    ordered = [""] * len(names)
    for class_id, name in zip(order, names, strict=True):
        ordered[int(class_id)] = name
    return tuple(ordered)


def _png(grey: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()
