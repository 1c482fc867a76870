"""What may be sent, in which form, and what is refused before anything is."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.client import InvalidInput, ServingError
from serving.client.images import encode_all


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.fixture
def path(tmp_path, png) -> Path:
    file = tmp_path / "shirt.png"
    file.write_bytes(png())
    return file


def test_files_and_bytes_go_as_they_are(path, png):
    assert [image.data for image in encode_all([path, str(path), png()])] == [png()] * 3
    assert [image.name for image in encode_all([path, png()])] == ["shirt.png", "image 1"]


@pytest.mark.parametrize("form", ["JPEG", "GIF", "BMP"])
def test_other_accepted_formats(form):
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4)).save(buffer, form)
    assert encode_all(buffer.getvalue())[0].data == buffer.getvalue()


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3), (5, 4, 4), (5, 4, 1)])
def test_arrays_come_back_pixel_by_pixel(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    (encoded,) = encode_all(array)
    np.testing.assert_array_equal(pixels(encoded.data), array.squeeze(2) if shape[-1] == 1 else array)


@pytest.mark.parametrize(("shape", "count"), [((6, 28, 28), 6), ((6, 5, 4, 3), 6), ((2, 4, 3), 1), ((0, 28, 28), 0)])
def test_batches_of_arrays(shape, count):
    assert len(encode_all(np.zeros(shape, np.uint8))) == count


def test_generators_and_lists_are_sequences(path, png):
    assert len(encode_all(image for image in (path, png()))) == 2
    assert encode_all(()) == []


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_pil_images_of_any_mode(mode):
    encoded = encode_all(Image.new(mode, (5, 4)))[0]
    assert pixels(encoded.data).dtype in (np.uint8, np.bool_)


def test_pil_image_of_16_bits_keeps_its_greys():
    image = Image.fromarray(np.array([[0, 256, 65535]], np.uint16))
    np.testing.assert_array_equal(pixels(encode_all(image)[0].data), [[0, 1, 255]])


def test_transparency_of_a_palette_survives():
    image = Image.new("P", (2, 1))
    image.info["transparency"] = 0
    assert pixels(encode_all(image)[0].data)[0, 0, 3] == 0


def test_pil_images_are_turned_upright():
    image = Image.new("RGB", (5, 4))
    image.getexif()[0x0112] = 6
    assert pixels(encode_all(image)[0].data).shape == (5, 4, 3)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("no-such-file.png", "no-such-file.png: no such file"),
        (Path("/"), "is a folder"),
        (b"", "image 1: is empty"),
        (b"hello", "is not an image; expected PNG, JPEG, GIF or BMP"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "is a WebP image"),
        (b"\0\0\0\x18ftypheic", "is a HEIC image"),
        (b"II*\0rest", "is a TIFF image"),
        (b"%PDF-1.7", "is a PDF document"),
        (b"<svg xmlns=", "is an SVG drawing"),
        (np.zeros((5, 4), np.float32), "uint8 0..255, got float32"),
        (np.zeros((5, 4, 2), np.uint8), r"got \(5, 4, 2\)"),
        (np.zeros((0, 4), np.uint8), r"got \(0, 4\)"),
        (np.zeros(3, np.uint8), r"got \(3,\)"),
        (Image.new("F", (5, 4)), "8 bits a channel, got a PIL image of mode F"),
        (17, "got int"),
        (None, "got NoneType"),
    ],
)
def test_refused_before_sending(fake, png, image, words):
    with fake.client() as client, pytest.raises(InvalidInput, match=words) as caught:
        client.predict([png(), image])
    assert caught.value.index == 1
    assert isinstance(caught.value, ServingError)
    assert isinstance(caught.value, ValueError)
    assert fake.requests == []


def test_empty_and_unreadable_files_are_named(tmp_path, fake):
    (tmp_path / "empty.png").touch()
    with fake.client() as client:
        with pytest.raises(InvalidInput, match=r"empty\.png: is empty"):
            client.predict(tmp_path / "empty.png")
        with pytest.raises(InvalidInput, match="cannot be read"):
            client.predict(tmp_path / "empty.png" / "below.png")
