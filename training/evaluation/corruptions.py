"""What happens to pictures on their way to a model: noise, blur, bad light, crooked cameras, compression, negatives.

After Hendrycks and Dietterich (2019, https://arxiv.org/abs/1903.12261), at three strengths. Lengths are fractions of
the image's edge, so that they mean the same at 28 and at 224 pixels. What comes in at the borders has their colour.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from training.datasets import png

_Apply = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Corruption:
    """One way to harm an image."""

    title: str
    unit: str  # of the strength, for an axis
    untouched: float  # the strength that changes nothing
    strengths: tuple[float, ...]  # from mild to severe
    encode: Callable[[np.ndarray, float, np.random.Generator], bytes]


def encoded(name: str, strength: float, images: Iterable[np.ndarray]) -> list[bytes]:
    """Corrupts images, the same way each time it is called.

    Args:
        name: a key of CORRUPTIONS.
        strength: in its unit.
        images: uint8 (H, W, 1 or 3), 0..255, each.

    Returns:
        PNG or JPEG bytes of each.
    """
    generator = np.random.default_rng(zlib.crc32(f"{name} {strength}".encode()))
    encode = CORRUPTIONS[name].encode
    return [encode(image, strength, generator) for image in images]


def _noise(image: np.ndarray, deviation: float, generator: np.random.Generator) -> np.ndarray:
    return _clipped(image + generator.normal(0.0, deviation, image.shape))


def _blur(image: np.ndarray, radius: float, _: np.random.Generator) -> np.ndarray:
    return _array(_picture(image).filter(ImageFilter.GaussianBlur(radius * max(image.shape[:2]))))


def _brightness(image: np.ndarray, factor: float, _: np.random.Generator) -> np.ndarray:
    return _clipped(image * factor)


def _contrast(image: np.ndarray, factor: float, _: np.random.Generator) -> np.ndarray:
    mean = image.mean()
    return _clipped(mean + factor * (image - mean))


def _inverted(image: np.ndarray, _: float, __: np.random.Generator) -> np.ndarray:
    return 255 - image


def _rotation(image: np.ndarray, degrees: float, generator: np.random.Generator) -> np.ndarray:
    angle = np.deg2rad(degrees) * generator.choice((-1, 1))
    return _affine(image, np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]))


def _shear(image: np.ndarray, slope: float, generator: np.random.Generator) -> np.ndarray:
    return _affine(image, np.array([[1.0, slope * generator.choice((-1, 1))], [0.0, 1.0]]))


def _scale(image: np.ndarray, factor: float, _: np.random.Generator) -> np.ndarray:
    return _affine(image, np.eye(2) / factor)


def _translation(image: np.ndarray, distance: float, generator: np.random.Generator) -> np.ndarray:
    angle = generator.uniform(0.0, 2 * np.pi)
    return _affine(image, np.eye(2), distance * max(image.shape[:2]) * np.array([np.cos(angle), np.sin(angle)]))


def _affine(image: np.ndarray, matrix: np.ndarray, shift: np.ndarray | float = 0.0) -> np.ndarray:
    """Maps about the middle; `matrix` leads from where a pixel is to where it was, x before y."""
    height, width = image.shape[:2]
    middle = np.array([width, height]) / 2
    offset = middle - matrix @ (middle + shift)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    fill = tuple(np.median(border, axis=0).astype(int).tolist())
    moved = _picture(image).transform(
        (width, height),
        Image.Transform.AFFINE,
        (*matrix[0], offset[0], *matrix[1], offset[1]),
        Image.Resampling.BILINEAR,
        fillcolor=fill[0] if len(fill) == 1 else fill,
    )
    return _array(moved)


def _as_png(apply: _Apply) -> Callable[[np.ndarray, float, np.random.Generator], bytes]:
    return lambda image, strength, generator: png(apply(image, strength, generator))


def _jpeg(image: np.ndarray, quality: float, _: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    _picture(image).save(buffer, "JPEG", quality=int(quality))
    return buffer.getvalue()


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _array(picture: Image.Image) -> np.ndarray:
    values = np.asarray(picture)
    return values if values.ndim == 3 else values[..., None]


def _clipped(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


CORRUPTIONS = {
    "noise": Corruption("Noise", "standard deviation, of 255", 0.0, (10.0, 25.0, 50.0), _as_png(_noise)),
    "blur": Corruption("Blur", "radius, of the edge", 0.0, (0.02, 0.04, 0.06), _as_png(_blur)),
    "brightness": Corruption("Less light", "brightness left", 1.0, (0.7, 0.5, 0.3), _as_png(_brightness)),
    "contrast": Corruption("Less contrast", "contrast left", 1.0, (0.7, 0.5, 0.3), _as_png(_contrast)),
    "rotation": Corruption("Rotation", "degrees", 0.0, (10.0, 20.0, 40.0), _as_png(_rotation)),
    "shear": Corruption("Shear", "slope", 0.0, (0.1, 0.2, 0.4), _as_png(_shear)),
    "scale": Corruption("Smaller object", "size left", 1.0, (0.9, 0.75, 0.5), _as_png(_scale)),
    "translation": Corruption("Shift", "distance, of the edge", 0.0, (0.05, 0.1, 0.2), _as_png(_translation)),
    "jpeg": Corruption("JPEG compression", "quality", 100.0, (75.0, 40.0, 10.0), _jpeg),
    "inverted": Corruption("Negative", "inverted", 0.0, (1.0,), _as_png(_inverted)),
}
