"""Draw evidence over a picture, in colours that colour-blind people can tell apart."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.client.results import Floats

Colours = tuple[tuple[int, int, int], ...]

# Anchors of matplotlib's inferno without its blackest end: brighter is more, in print and to every eye.
_EVIDENCE: Colours = ((66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))
# Blue against orange (the poles of PuOr and vik): the pair that all common colour blindnesses keep apart.
_CONTRAST: Colours = ((5, 73, 140), (92, 154, 202), (240, 240, 240), (240, 158, 80), (170, 76, 4))
_FAINT = 0.05


def evidence_colours() -> Colours:
    """Colours of an evidence map, from little to much."""
    return _EVIDENCE


def contrast_colours() -> Colours:
    """Colours of a contrast map, from the other class to the explained one."""
    return _CONTRAST


def evidence(picture: Image.Image, cam: Floats, box: Floats | None, opacity: float) -> Image.Image:
    """Lay a map of evidence over a picture; where there is none the picture stays as it is.

    Args:
        picture: upright RGB.
        cam: (h, w), not negative, any scale; all zero leaves the picture untouched.
        box: (4,) ymin, xmin, ymax, xmax of the square the map covers, fractions of the picture; None: all of it.
        opacity: 0..1, of the strongest place.
    """
    peak = float(cam.max())
    if peak <= 0:
        return picture.copy()
    strength = np.clip(_stretched(cam / peak, picture, box), 0, 1)
    return _blend(picture, _coloured(strength, _EVIDENCE), opacity * _fade(strength))


def contrast(picture: Image.Image, difference: Floats, box: Floats | None, opacity: float) -> Image.Image:
    """Lay a signed map over a picture, both signs on one scale. Arguments as `evidence`."""
    peak = float(np.abs(difference).max())
    if peak <= 0:
        return picture.copy()
    signed = np.clip(_stretched(difference / peak, picture, box), -1, 1)
    return _blend(picture, _coloured((signed + 1) / 2, _CONTRAST), opacity * _fade(np.abs(signed)))


def signed_colours(values: Floats) -> npt.NDArray[np.uint8]:
    """Background colours of a table of signed numbers, (h, w) to uint8 (h, w, 3)."""
    peak = float(np.abs(values).max()) or 1.0
    return _coloured((values / peak + 1) / 2, _CONTRAST).round().astype(np.uint8)


def _fade(strength: Floats) -> Floats:
    """Nothing where there is next to no evidence, quickly full where there is some."""
    faded: Floats = np.clip((strength - _FAINT) / 0.5, 0, 1).astype(np.float32)
    return faded


def _stretched(cam: Floats, picture: Image.Image, box: Floats | None) -> Floats:
    """The map smoothly enlarged to its place in the picture, (height, width); zero outside."""
    ymin, xmin, ymax, xmax = (0.0, 0.0, 1.0, 1.0) if box is None else map(float, box)
    rows, columns = cam.shape
    # Where each pixel's centre lies on the map's grid; cell centres are at whole numbers.
    y = ((np.arange(picture.height) + 0.5) / picture.height - ymin) / (ymax - ymin) * rows - 0.5
    x = ((np.arange(picture.width) + 0.5) / picture.width - xmin) / (xmax - xmin) * columns - 0.5
    inside = np.outer((y >= -0.5) & (y <= rows - 0.5), (x >= -0.5) & (x <= columns - 0.5))
    stretched: Floats = (_hats(y, rows) @ cam @ _hats(x, columns).T * inside).astype(np.float32)
    return stretched


def _hats(position: npt.NDArray[np.float64], cells: int) -> npt.NDArray[np.float64]:
    """Weights of bilinear interpolation, (positions, cells); beyond the outer centres the border's value holds."""
    nearest = np.clip(position, 0, cells - 1)
    weights: npt.NDArray[np.float64] = np.maximum(0, 1 - np.abs(nearest[:, None] - np.arange(cells)))
    return weights


def _coloured(strength: npt.NDArray[np.floating[Any]], colours: Colours) -> Floats:
    """Values 0..1 to colours 0..255, one more axis of 3."""
    steps = np.linspace(0, 1, len(colours))
    channels = [np.interp(strength, steps, [colour[i] for colour in colours]) for i in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _blend(picture: Image.Image, colours: Floats, alpha: Floats) -> Image.Image:
    base = np.asarray(picture.convert("RGB"), np.float32)
    blended = base + (colours - base) * alpha[..., None]
    return Image.fromarray(blended.round().astype(np.uint8))
