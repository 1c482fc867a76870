"""One picture file as the pixels that a model of colour images sees: upright, over white, of one size."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from training.datasets.base import DataError

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".webp")
MAX_PIXELS = 16_000_000  # as in the served graph
# what Pillow's readers raise on damaged files besides OSError
_DAMAGED = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError)
_DAMAGED += (struct.error, zlib.error, Image.DecompressionBombError, MemoryError)

# EXIF 2.32, table 6: how the picture lies in the file, and what turns it upright
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PhotoError(DataError):
    """A file that is no picture, or a damaged or too large one; the message is the reason alone."""


def read_photo(content: bytes, image_size: int) -> np.ndarray:
    """Decodes one picture and brings it to image_size x image_size, not keeping its aspect.

    The served graph does the same: decode (of an animation the first frame), turn upright by EXIF, lay over white,
    resize with an antialiasing triangle filter, round. But it looks for EXIF in JPEG alone, where cameras write it; the
    rare PNG or WebP that has some is turned only here.

    Args:
        content: a PNG, JPEG, GIF, BMP or WebP file.
        image_size: pixels, height and width.

    Returns:
        uint8 (image_size, image_size, 3), 0..255.

    Raises:
        PhotoError: why it cannot be read.
    """
    if not content:
        raise PhotoError("empty file")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise PhotoError(f"{width}x{height} pixels; expected at most {MAX_PIXELS // 10**6} megapixels")
            upright = _upright(_in_colour(image), _orientation(image))
        return np.asarray(upright.resize((image_size, image_size), Image.Resampling.BILINEAR))
    except PhotoError:
        raise
    except UnidentifiedImageError:
        raise PhotoError("not a PNG, JPEG, GIF, BMP or WebP image") from None
    except Image.DecompressionBombError:
        raise PhotoError(f"more than {MAX_PIXELS // 10**6} megapixels") from None
    except _DAMAGED as error:
        raise PhotoError(f"damaged or truncated ({error})") from error


def _in_colour(image: Image.Image) -> Image.Image:
    """Any mode as RGB, over white."""
    if image.mode.startswith("I"):  # 16 bits a pixel, of which the upper eight count; Pillow would clip them
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"), np.float32)  # (H, W, 4)
        alpha = rgba[..., 3:] / 255.0
        return Image.fromarray(np.round(rgba[..., :3] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8))
    if image.format == "GIF":  # what the first frame leaves free is white, not its first colour
        box = image.tile[0].extents
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(image.convert("RGB").crop(box), box)
        return canvas
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DAMAGED:  # the picture itself is whole
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image
