"""From what a person has (path, bytes, array, PIL image) to the encoded bytes that are sent, or a clear refusal."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from serving.client.errors import InvalidInput

ImageLike: TypeAlias = bytes | str | PathLike[str] | npt.NDArray[np.uint8] | Image.Image

ACCEPTED = "PNG, JPEG, GIF or BMP"
_ACCEPTED_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM")
_KNOWN_OTHERS = (
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "an XML document"),
    (0, b"<!DOCTYPE", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"PK\x03\x04", "a zip archive"),
    (8, b"WEBP", "a WebP image"),
    (4, b"ftypheic", "a HEIC image"),
    (4, b"ftypmif1", "a HEIC image"),
    (4, b"ftypavif", "an AVIF image"),
)


@dataclass(frozen=True)
class EncodedImage:
    """One image as it is sent, what to call it when something is wrong with it, and which class is asked about."""

    data: bytes
    name: str
    class_id: int | None = None


def encode_all(images: ImageLike | Iterable[ImageLike]) -> list[EncodedImage]:
    """Encode one image or several.

    Args:
        images: one or a sequence of: path, encoded bytes (PNG, JPEG, GIF, BMP), PIL image, uint8 array 0..255 of
            shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). An array of shape (N, H, W) whose last axis is none of
            1, 3, 4, or of four dimensions, is a batch.

    Returns:
        One encoded image each. Files and bytes go as they are, arrays and PIL images as PNG.

    Raises:
        InvalidInput: with the image's index and what was expected.
    """
    encoded = []
    for index, image in enumerate(_as_sequence(images)):
        try:
            encoded.append(_encode(image, f"image {index}"))
        except InvalidInput as error:
            error.index = index
            raise
    return encoded


def _as_sequence(images: object) -> Iterable[object]:
    if isinstance(images, np.ndarray):
        single = images.ndim <= 2 or (images.ndim == 3 and images.shape[-1] in (1, 3, 4))
        return [images] if single else list(images)
    if isinstance(images, bytes | bytearray | memoryview | str | PathLike | Image.Image):
        return [images]
    if isinstance(images, Iterable):
        return images
    return [images]


def _encode(image: object, name: str) -> EncodedImage:
    if isinstance(image, str | PathLike):
        path = Path(image)
        return EncodedImage(_checked(_read(path), path.name), path.name)
    if isinstance(image, bytes | bytearray | memoryview):
        return EncodedImage(_checked(bytes(image), name), name)
    if isinstance(image, np.ndarray):
        return EncodedImage(_png(_from_array(image, name)), name)
    if isinstance(image, Image.Image):
        return EncodedImage(_png(_png_mode(ImageOps.exif_transpose(image), name)), name)
    raise InvalidInput(
        f"{name}: expected a path, encoded bytes, a uint8 array or a PIL image, got {type(image).__name__}"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InvalidInput(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InvalidInput(f"{path}: is a folder; give the image files in it") from None
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror or error})") from error


def _checked(data: bytes, name: str) -> bytes:
    if not data:
        raise InvalidInput(f"{name}: is empty (0 bytes)")
    if data.startswith(_ACCEPTED_STARTS):
        return data
    kind = next((what for at, start, what in _KNOWN_OTHERS if data[at:].startswith(start)), "not an image")
    raise InvalidInput(f"{name}: is {kind}; expected {ACCEPTED}")


def _from_array(array: npt.NDArray[np.generic], name: str) -> Image.Image:
    if array.dtype != np.uint8:
        raise InvalidInput(f"{name}: expected an array of uint8 0..255, got {array.dtype}; scale and cast it first")
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        raise InvalidInput(f"{name}: expected an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}")
    return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.ndim == 3 and channels == 1 else array))


def _png_mode(image: Image.Image, name: str) -> Image.Image:
    """The image in a mode that PNG holds in 8 bits; transparency stays, the server lays it over white."""
    if image.mode in ("L", "RGB", "RGBA", "LA"):
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InvalidInput(
            f"{name}: expected 8 bits a channel, got a PIL image of mode {image.mode}; scale it to 0..255"
        )
    if image.mode in ("PA", "La", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("L" if image.mode == "1" else "RGB")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
