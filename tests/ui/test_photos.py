"""Pictures made ready: what is sent, what is shown, what is refused in words."""

import io

import numpy as np
import pytest
from PIL import Image

from ui import photos


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(kind: str, **options: object) -> bytes:
    """Left half red, to be turned by 90 degrees clockwise: red is then the upper half."""
    image = Image.new("RGB", (200, 100), "black")
    image.paste("red", (0, 0, 100, 100))
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, kind, exif=exif, **options)


def opened(raw: bytes) -> Image.Image:
    return Image.open(io.BytesIO(raw))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def many_pictures() -> bytes:
    """A JPEG with a second picture in it, as phones write them; Pillow calls it MPO."""
    raw = encoded(noise(50, 30), "MPO", save_all=True, append_images=[noise(50, 30)])
    assert opened(raw).format == "MPO"
    return raw


@pytest.mark.parametrize(
    "raw",
    [
        encoded(noise(50, 30), "PNG"),
        encoded(noise(50, 30), "JPEG"),
        many_pictures(),
        encoded(noise(50, 30), "JPEG", exif=b"Exif\0\0garbage!"),
        encoded(noise(50, 30), "PNG", exif=b"Exif\0\0MM\0*"),
    ],
    ids=["PNG", "JPEG", "many pictures", "damaged EXIF", "EXIF cut short"],
)
def test_what_the_server_sees_as_it_is_shown_is_sent_untouched(raw):
    picture = photos.read("a", raw)
    assert picture.data == raw
    assert picture.notes == ()
    assert (picture.width, picture.height) == (50, 30)


def half_transparent_gif() -> bytes:
    image = Image.new("P", (50, 30), 0)
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.paste(1, (0, 0, 25, 30))
    return encoded(image, "GIF", transparency=0)


@pytest.mark.parametrize(
    "raw",
    [
        encoded(noise(50, 30), "WEBP", lossless=True),
        half_transparent_gif(),
        encoded(noise(50, 30).quantize(16), "BMP"),
        encoded(noise(50, 30).convert("1"), "BMP"),
        encoded(noise(50, 30).convert("RGBA"), "BMP"),
        turned("PNG"),
        turned("WEBP", lossless=True),
        # the server looks for EXIF only where it usually stands
        turned("JPEG", quality=100).replace(b"\xff\xe1", b"\xff\xfe\0\x20" + b"comment" * 4 + b"..\xff\xe1", 1),
    ],
    ids=["WebP", "GIF", "BMP of 8 bits", "BMP of 1 bit", "BMP of 32 bits", "turned PNG", "turned WebP", "late EXIF"],
)
def test_what_the_server_would_see_otherwise_is_sent_as_a_png_of_what_is_shown(raw):
    picture = photos.read("a", raw)
    sent = opened(picture.data)
    assert (sent.format, sent.mode) == ("PNG", "RGB")
    assert not sent.getexif(), "turned already, it must not be turned again"
    assert np.array_equal(np.asarray(sent), np.asarray(picture.shown))
    assert f"a PNG copy of {sent.width} x {sent.height} pixels was sent" in picture.notes[0]


@pytest.mark.parametrize(
    "raw",
    [
        half_transparent_gif(),
        encoded(Image.new("RGBA", (50, 30), (200, 0, 0, 100)), "PNG"),
        encoded(Image.fromarray(np.full((30, 50), 175 * 256, np.uint16)), "PNG"),
        encoded(noise(50, 30).quantize(4), "PNG"),
        encoded(noise(50, 30).quantize(4), "PNG", transparency=1),
        encoded(noise(50, 30).convert("1"), "PNG"),
        encoded(noise(50, 30).convert("LA"), "PNG"),
        *(turned(kind) for kind in ("PNG", "JPEG", "WEBP")),
        encoded(Image.new("CMYK", (50, 30), (10, 200, 90, 30)), "JPEG"),
        many_pictures(),
    ],
)
def test_the_served_graph_sees_what_is_shown(raw):
    import tensorflow as tf

    from training.preprocessing import decode

    picture = photos.read("a", raw)
    served = decode(tf.constant(picture.data)).numpy().astype(int)
    difference = np.abs(served - np.asarray(picture.shown, int))
    assert difference.mean() < 1, "not the same picture, but for what two JPEG decoders make of its chroma"


def test_a_png_copy_larger_than_a_request_becomes_a_jpeg():
    raw = encoded(noise(2048, 2048), "WEBP", quality=50, method=0)
    picture = photos.read("a.webp", raw)
    assert opened(picture.data).format == "JPEG"
    assert len(picture.data) < photos.MAX_SENT_BYTES
    assert "a JPEG copy of 2048 x 2048 pixels" in picture.notes[0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_turned_photo_is_shown_upright(kind):
    picture = photos.read("turned", turned(kind))
    assert (picture.width, picture.height) == (100, 200)
    assert picture.shown.size == (100, 200)
    assert picture.shown.getpixel((50, 20))[0] > 200
    assert picture.shown.getpixel((50, 180))[0] < 50


def test_a_turned_jpeg_is_sent_as_it_is_for_the_server_turns_it():
    assert photos.read("turned.jpg", turned("JPEG")).data == turned("JPEG")


def test_a_photo_of_too_many_pixels_is_sent_smaller_and_said_so():
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = encoded(Image.new("RGB", (6000, 3000), "teal"), "JPEG", exif=exif)
    picture = photos.read("big.jpg", raw)
    sent = Image.open(io.BytesIO(picture.data))
    assert sent.size == (1024, 2048)
    assert sent.getexif().get(0x0112) is None, "turned already, it must not be turned again"
    assert "3000 x 6000 pixels" in picture.notes[0]
    assert "1024 x 2048 pixels" in picture.notes[0]
    assert max(picture.shown.size) == photos.SHOWN_SIDE


def test_a_file_larger_than_a_request_is_sent_smaller():
    raw = encoded(noise(1700, 1600), "BMP")
    assert photos.MAX_SENT_BYTES < len(raw) < photos.MAX_UPLOAD_BYTES
    picture = photos.read("big.bmp", raw)
    assert len(picture.data) < photos.MAX_SENT_BYTES
    assert "larger than the server takes" in picture.notes[0]


def test_transparency_is_shown_over_white():
    picture = photos.read("a.png", encoded(Image.new("RGBA", (10, 10), (255, 0, 0, 0)), "PNG"))
    assert picture.shown.getpixel((5, 5)) == (255, 255, 255)


def test_sixteen_bits_are_shown_as_eight():
    deep = Image.fromarray(np.full((10, 10), 0x8000, np.uint16))
    assert photos.read("a.png", encoded(deep, "PNG")).shown.getpixel((5, 5)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "is empty"),
        (b"hello", "is not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not a picture"),
        (encoded(noise(60, 60), "PNG")[:900], "is not a picture"),
        (encoded(noise(60, 60), "JPEG")[:300], "is not a picture"),
        (encoded(noise(4, 4), "TIFF"), "is not a picture"),
        (b"\x89PNG\r\n\x1a\n" + bytes(photos.MAX_UPLOAD_BYTES), "is too large: 10.0 MB"),
    ],
)
def test_what_is_no_picture_is_refused_in_words(raw, words):
    with pytest.raises(photos.PhotoError) as refusal:
        photos.read("file.png", raw)
    advice = refusal.value.advice
    assert words in advice.title
    assert "“file.png”" in advice.title
    assert advice.action
    assert "0x" not in advice.detail


@pytest.mark.parametrize("side", [8100, 13500])  # over the page's limit, and over the one where Pillow refuses
def test_a_decompression_bomb_is_not_opened(side):
    bomb = encoded(Image.new("1", (side, side)), "PNG", compress_level=1)
    assert len(bomb) < photos.MAX_UPLOAD_BYTES
    with pytest.raises(photos.PhotoError, match="too many pixels"):
        photos.read("bomb.png", bomb)


def test_the_same_bytes_have_the_same_digest():
    raw = encoded(noise(5, 5), "PNG")
    assert photos.read("a", raw).digest == photos.read("b", raw).digest
    assert photos.read("a", raw).digest != photos.read("a", encoded(noise(6, 5), "PNG")).digest
