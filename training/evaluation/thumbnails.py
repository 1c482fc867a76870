"""Small pictures for a page, as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from training.datasets import png

SMALL = 40  # pixels; up to here every one of them is kept
EDGE = 96  # pixels, of what is larger


def data_uri(image: np.ndarray) -> str:
    """One image, uint8 (H, W, 1 or 3), as PNG while it is small, else brought down and as JPEG."""
    if max(image.shape[:2]) <= SMALL:
        return _uri("png", png(image))
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.thumbnail((EDGE, EDGE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return _uri("jpeg", buffer.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
