"""Pictures of every kind as the model sees them: against the served graph's decoder, and known pixels by hand."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from training.datasets.photos import MAX_PIXELS, PhotoError, read_photo
from training.preprocessing import View

ORIENTATION = 0x0112
RNG = np.random.default_rng(0)
SMOOTH = Image.fromarray(RNG.integers(0, 256, (9, 13, 3), np.uint8)).resize((130, 90), Image.Resampling.BICUBIC)
VEILED = SMOOTH.copy()
VEILED.putalpha(Image.fromarray(RNG.integers(0, 256, (90, 130), np.uint8)))
SIXTEEN_BITS = Image.fromarray(RNG.integers(0, 2**16, (90, 130), np.uint16))


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(SMOOTH, "JPEG", quality=95, exif=exif)


def small_frame() -> bytes:
    """A GIF of 40x30 whose first frame is 20x10, at 5, 7."""
    content = bytearray(encoded(SMOOTH.resize((20, 10)).quantize(4), "GIF"))
    content[6:10] = struct.pack("<HH", 40, 30)
    frame = content.index(b"\x2c")
    content[frame + 1 : frame + 5] = struct.pack("<HH", 5, 7)
    return bytes(content)


PICTURES = {
    "PNG": encoded(SMOOTH, "PNG"),
    "PNG with alpha": encoded(VEILED, "PNG"),
    "PNG, grey": encoded(SMOOTH.convert("L"), "PNG"),
    "PNG, grey with alpha": encoded(VEILED.convert("LA"), "PNG"),
    "PNG, palette": encoded(SMOOTH.quantize(17), "PNG"),
    "PNG, palette with a transparent colour": encoded(SMOOTH.quantize(17), "PNG", transparency=3),
    "PNG with a transparent colour": encoded(SMOOTH, "PNG", transparency=SMOOTH.getpixel((0, 0))),
    "PNG, 1 bit": encoded(SMOOTH.convert("1"), "PNG"),
    "PNG, 16 bits": encoded(SIXTEEN_BITS, "PNG"),
    "PNG, one pixel": encoded(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"),
    "PNG, one column": encoded(SMOOTH.crop((5, 0, 6, 90)), "PNG"),
    "BMP": encoded(SMOOTH, "BMP"),
    "BMP, grey": encoded(SMOOTH.convert("L"), "BMP"),
    "GIF": encoded(SMOOTH.quantize(16), "GIF"),
    "GIF with a transparent colour": encoded(SMOOTH.quantize(16), "GIF", transparency=3),
    "GIF, moving": encoded(SMOOTH.quantize(16), "GIF", save_all=True, append_images=[SIXTEEN_BITS.convert("L")]),
    "GIF, small frame": small_frame(),
    "JPEG": encoded(SMOOTH, "JPEG", quality=95),
    "JPEG, grey": encoded(SMOOTH.convert("L"), "JPEG"),
    "JPEG, CMYK": encoded(SMOOTH.convert("CMYK"), "JPEG", quality=95),
} | {f"JPEG, orientation {number}": turned(number) for number in range(1, 9)}


@pytest.mark.parametrize("size", [40, 200])
@pytest.mark.parametrize("name", PICTURES)
def test_training_sees_what_is_served(name, size):
    content = PICTURES[name]
    photo = read_photo(content, size)
    assert (photo.shape, photo.dtype) == ((size, size, 3), np.uint8)
    served = View("colour", size).of_bytes(tf.constant(content))[0].numpy()
    # Pillow rounds after each of the two axes
    assert np.abs(photo - served).max() <= 1


@pytest.mark.parametrize(
    ("image", "pixel"),
    [
        (Image.new("RGBA", (3, 3), (0, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (3, 3), (10, 20, 30, 255)), (10, 20, 30)),
        (Image.new("RGBA", (3, 3), (0, 100, 200, 51)), (204, 224, 244)),
        (Image.new("L", (3, 3), 77), (77, 77, 77)),
        (Image.fromarray(np.full((3, 3), 0x4DFF, np.uint16)), (77, 77, 77)),
        (Image.new("1", (3, 3), 1), (255, 255, 255)),
    ],
)
def test_known_pixels(image, pixel):
    assert (read_photo(encoded(image, "PNG"), 2) == pixel).all()


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_is_read_over_white_and_upright(lossless):
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 20, 10))
    photo = read_photo(encoded(image, "WEBP", lossless=lossless, exif=exif), 20).astype(int)
    assert np.abs(photo[:8] - 255).max() < 12
    assert np.abs(photo[12:] - (200, 0, 0)).max() < 12


def test_the_aspect_is_not_kept():
    image = Image.new("RGB", (40, 10), "white")
    image.paste("black", (0, 0, 20, 10))
    photo = read_photo(encoded(image, "PNG"), 10)
    assert (photo[:, :4] == 0).all()
    assert (photo[:, 6:] == 255).all()


def test_broken_exif_leaves_the_picture():
    content = turned(6).replace(b"Exif\0\0MM", b"Exif\0\0XX").replace(b"Exif\0\0II", b"Exif\0\0XX")
    np.testing.assert_array_equal(read_photo(content, 30), read_photo(PICTURES["JPEG"], 30))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "^empty file$", id="empty"),
        pytest.param(b"%PDF-1.7", "^not a PNG, JPEG, GIF, BMP or WebP image$", id="another kind"),
        pytest.param(encoded(SMOOTH, "TIFF"), "^not a PNG", id="TIFF"),
        pytest.param(PICTURES["PNG"][:-400], r"^damaged or truncated \(", id="PNG, cut"),
        pytest.param(PICTURES["JPEG"][:2000], r"^damaged or truncated \(", id="JPEG, cut"),
        pytest.param(PICTURES["GIF"][:900], r"^damaged or truncated \(", id="GIF, cut"),
        pytest.param(PICTURES["BMP"][:-400], r"^damaged or truncated \(", id="BMP, cut"),
        pytest.param(encoded(SMOOTH, "WEBP")[:-200], r"^not a PNG|^damaged", id="WebP, cut"),
        pytest.param(png_header(4001, 4000), "^4001x4000 pixels; expected at most 16 megapixels$", id="too large"),
        pytest.param(png_header(30_000, 30_000), "^more than 16 megapixels$", id="far too large"),
        pytest.param(png_header(0, 5), r"^(not a PNG|damaged)", id="no column"),
    ],
)
def test_what_cannot_be_read_has_a_reason(content, reason):
    with pytest.raises(PhotoError, match=reason):
        read_photo(content, 20)


def test_sixteen_megapixels_are_not_too_large():
    assert read_photo(encoded(Image.new("1", (4000, MAX_PIXELS // 4000)), "PNG"), 8).max() == 0
