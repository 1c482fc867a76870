"""Decoding what people have, and bringing it into Fashion-MNIST's world."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageDraw, ImageOps

from training.datasets import load_test
from training.decoding import MAX_PIXELS, decode
from training.preprocessing import View, polarised, to_view

SIZE = View().size

_decode = tf.function(decode, input_signature=[tf.TensorSpec([], tf.string)])
_to_view = tf.function(lambda image: to_view(image, SIZE), input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])


def decoded(content: bytes) -> np.ndarray:
    return _decode(tf.constant(content)).numpy().astype(int)


def view(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    seen, box = _to_view(tf.constant(image))
    return seen.numpy(), box.numpy()


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def gradient(mode: str, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A picture whose corners differ, so that no turn of it is itself."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    rgb = np.stack([255 * x, 255 * y, 128 * x * y], axis=-1).astype(np.uint8)
    return Image.fromarray(rgb).convert(mode)


def grey_rgb(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=-1)


# formats


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1"])
@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_lossless_formats_are_read_as_pil_reads_them(mode, file_format):
    content = encoded(gradient(mode), file_format)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    np.testing.assert_array_equal(decoded(content), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(mode):
    picture = gradient(mode)
    picture.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 40).astype(np.uint8), (30, 1))))
    over_white = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    found = decoded(encoded(picture, "PNG"))
    np.testing.assert_allclose(found, np.asarray(over_white.convert("RGB")), atol=1)
    assert (found[:, 0] == 255).all()


def test_a_palettes_transparent_colour_is_white():
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((1, 2), 1)
    found = decoded(encoded(picture, "PNG", transparency=0))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[2, 1].tolist() == [200, 100, 50]


@pytest.mark.parametrize("colours", [2, 4, 16])
@pytest.mark.parametrize("transparent", [False, True])
def test_small_palettes(colours, transparent):
    """PNGs of 1, 2 and 4 bits a pixel, whose opaque pixels TensorFlow's decoder takes for nearly transparent ones."""
    picture = gradient("RGB").quantize(colours)
    content = encoded(picture, "PNG", **({"transparency": 0} if transparent else {}))
    assert content[24] == {2: 1, 4: 2, 16: 4}[colours]
    rgba = Image.open(io.BytesIO(content)).convert("RGBA")
    expected = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    np.testing.assert_array_equal(decoded(content), np.asarray(expected))


def test_sixteen_bits_keep_their_upper_eight():
    values = (np.arange(30 * 40, dtype=np.uint16).reshape(30, 40) * 50).astype(np.uint16)
    found = decoded(encoded(Image.fromarray(values), "PNG"))
    np.testing.assert_allclose(found, grey_rgb(values // 256), atol=1)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg(mode):
    content = encoded(gradient(mode), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    assert np.abs(decoded(content) - expected).mean() < 3


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA"])
def test_bmp(mode):
    picture = gradient("RGB").quantize(17) if mode == "P" else gradient(mode)
    np.testing.assert_array_equal(decoded(encoded(picture, "BMP")), np.asarray(picture.convert("RGB")))


def test_other_bmps_are_refused_in_our_words():
    run_length_encoded = bytearray(encoded(gradient("L"), "BMP"))
    run_length_encoded[30] = 1
    for content in (encoded(gradient("1"), "BMP"), bytes(run_length_encoded)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="uncompressed BMP of 8, 24 or 32 bits a pixel, got"):
            decoded(content)


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize("colours", [2, 16, 200])
def test_a_gifs_transparent_colour_is_white(colours, interlace):
    content = encoded(gradient("RGB").quantize(colours), "GIF", transparency=1, interlace=interlace, comment=b"here")
    rgba = Image.open(io.BytesIO(content)).convert("RGBA")
    assert rgba.getextrema()[3] == (0, 255)
    expected = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    np.testing.assert_array_equal(decoded(content), np.asarray(expected))


def test_a_gifs_first_frame_lies_on_white_where_it_says():
    content = bytearray(encoded(gradient("RGB").quantize(16), "GIF"))
    frame = content.index(b"\x2c" + struct.pack("<HHHH", 0, 0, 40, 30))
    content[6:10] = struct.pack("<HH", 64, 48)
    content[frame + 1 : frame + 5] = struct.pack("<HH", 10, 5)
    expected = np.full((48, 64, 3), 255)
    expected[5:35, 10:50] = np.asarray(gradient("RGB").quantize(16).convert("RGB"))
    np.testing.assert_array_equal(decoded(bytes(content)), expected)


def test_the_first_frame_of_an_animation():
    frames = [gradient("RGB"), Image.new("RGB", (40, 30), "red"), Image.new("RGB", (40, 30), "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], comment=b"made here", duration=40)
    assert Image.open(io.BytesIO(content)).n_frames == 3
    np.testing.assert_array_equal(decoded(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(orientation, endian):
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F] = "a camera"
    exif[0x0112] = orientation
    content = encoded(gradient("RGB", (48, 32)), "JPEG", exif=exif.tobytes(), quality=95, subsampling=0)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content)))).astype(int)
    found = decoded(content)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 2


# what is refused


def claiming_png(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def claiming_jpeg(width: int, height: int) -> bytes:
    content = encoded(gradient("RGB"), "JPEG")
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


def claiming_gif(width: int, height: int) -> bytes:
    content = encoded(gradient("P"), "GIF")
    return content[:6] + struct.pack("<HH", width, height) + content[10:]


def claiming_gif_frame(width: int, height: int) -> bytes:
    content = encoded(gradient("P"), "GIF")
    at = content.index(b"\x2c\x00\x00\x00\x00\x28\x00\x1e\x00") + 5
    return content[:at] + struct.pack("<HH", width, height) + content[at + 4 :]


def claiming_bmp(width: int, height: int) -> bytes:
    content = encoded(gradient("RGB"), "BMP")
    return content[:18] + struct.pack("<ii", width, -height) + content[26:]


@pytest.mark.parametrize("claim", [claiming_png, claiming_jpeg, claiming_gif, claiming_gif_frame, claiming_bmp])
def test_too_large_by_its_header(claim):
    """The pixels are not even there: only the header can have been looked at."""
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"at most\W+{MAX_PIXELS}\W+pixels"):
        decoded(claim(4001, 4000))


@pytest.mark.parametrize("claim", [claiming_png, claiming_gif_frame, claiming_bmp])
def test_sixteen_megapixels_are_not_too_large(claim):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:  # only that those pixels are not there
        decoded(claim(4000, 4000))
    assert "at most" not in caught.value.message


def test_a_bomb_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most"):
        decoded(claiming_png(2**31 - 1, 2**31 - 1))


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"RIFF1234WEBP"]
)
def test_no_image(content):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoded(content)


@pytest.mark.parametrize("content", [b"GIF89a\1\0\1\0" + bytes(3), b"GIF89a\1\0\1\0\0\0\0\x2c" + bytes(4)])
def test_a_gif_that_ends_early_is_refused_in_our_words(content):
    with pytest.raises(tf.errors.InvalidArgumentError, match="image_bytes: expected"):
        decoded(content)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.05, 0.2])
def test_truncated_files_are_refused(file_format, share):
    content = encoded(gradient("P" if file_format == "GIF" else "RGB"), file_format)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoded(content[: int(len(content) * share)])


# 28x28 grey


@pytest.fixture(scope="module")
def official() -> np.ndarray:
    return load_test().images[..., 0]


def test_official_images_are_left_untouched(official):
    for image in official[:20]:
        seen, box = view(grey_rgb(image))
        np.testing.assert_array_equal(seen, image)
        assert box.tolist() == [0, 0, 1, 1]


def test_inverted_official_images_come_back_exactly(official):
    for image in official[:20]:
        np.testing.assert_array_equal(view(grey_rgb(255 - image))[0], image)


@pytest.mark.parametrize("inverted", [False, True])
def test_polarity_is_right_for_all_official_images(official, inverted):
    sent = 255 - official if inverted else official
    run = tf.function(lambda images: tf.map_fn(polarised, images))
    np.testing.assert_array_equal(run(tf.cast(sent, tf.float32)).numpy(), official)


# any picture


def shirt(ink: int, ground: int, size: tuple[int, int] = (300, 400)) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """A T of `ink` on `ground`, off the middle, and the rectangle around it (ymin, xmin, ymax, xmax)."""
    picture = Image.new("L", size, ground)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((60, 80, 219, 119), fill=ink)
    pen.rectangle((100, 80, 179, 279), fill=ink)
    return grey_rgb(np.asarray(picture)), (80, 60, 280, 220)


def test_dark_on_white_and_light_on_black_look_the_same():
    on_white, on_black = view(shirt(20, 255)[0])[0], view(shirt(235, 0)[0])[0]
    np.testing.assert_allclose(on_white, on_black, atol=1)
    assert on_white[2, 14] > 200  # the object is light,
    assert on_white[-2, 1] < 5  # the ground black


def test_the_object_fills_the_view():
    seen, _ = view(shirt(255, 0)[0])
    lit = np.argwhere(seen > 50)
    assert lit[:, 0].min() <= 1
    assert lit[:, 0].max() >= SIZE - 2  # the longest edge
    left, right = lit[:, 1].min(), SIZE - 1 - lit[:, 1].max()
    assert abs(left - right) <= 1  # centred
    assert left == pytest.approx(SIZE * (200 - 160) / 2 / 200, abs=1)  # not stretched


@pytest.mark.parametrize(("ink", "ground"), [(20, 255), (235, 0), (200, 60)])
@pytest.mark.parametrize("size", [(300, 400), (240, 300), (700, 290)])
def test_the_box_is_where_the_object_is(ink, ground, size):
    image, (ymin, xmin, ymax, xmax) = shirt(ink, ground, size)
    height, width = image.shape[:2]
    box = view(image)[1] * (height, width, height, width)
    slack = 1.5 * max(height, width) / 256  # of a pixel at the size worked at
    assert box[0] <= ymin + slack
    assert box[1] <= xmin + slack
    assert box[2] >= ymax - slack
    assert box[3] >= xmax - slack
    assert box[2] - box[0] == pytest.approx(box[3] - box[1], rel=0.03)  # a square of the photo
    assert box[2] - box[0] == pytest.approx(ymax - ymin, abs=3 * slack)  # no larger than needed


@pytest.mark.parametrize("value", [0, 100, 127, 128, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 3), (28, 27), (60, 60), (28, 28), (1, 3000)])
def test_a_uniform_picture_gives_a_finite_view(shape, value):
    seen, box = view(np.full((*shape, 3), value, np.uint8))
    assert np.isfinite(seen).all()
    assert np.isfinite(box).all()
    assert seen.min() >= 0
    assert seen.max() <= 255
    assert (box[2:] > box[:2]).all()


@pytest.mark.parametrize("shape", [(100, 50), (50, 100), (2, 2), (64, 64)])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_border_half_black_half_white_gives_a_finite_view(shape, axis):
    image = np.zeros((*shape, 3), np.uint8)
    if axis:
        image[:, shape[1] // 2 :] = 255
    else:
        image[shape[0] // 2 :] = 255
    seen, _ = view(image)
    assert np.isfinite(seen).all()
    assert seen.max() == 255


def test_noise_gives_whole_numbers_in_range():
    rng = np.random.default_rng(0)
    for shape in ((5, 9), (28, 28), (300, 17), (90, 500)):
        seen, box = view(rng.integers(0, 256, (*shape, 3), np.uint8))
        assert np.isfinite(box).all()
        assert 0 <= seen.min() <= seen.max() <= 255
        np.testing.assert_array_equal(seen, np.round(seen))


# models of colour images


def colour_view(picture: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    seen, box = View("colour", size).of_picture(tf.constant(picture))
    return seen.numpy(), box.numpy()


@pytest.mark.parametrize("size", [(300, 200), (33, 80), (1, 1), (640, 10), (3, 6000)])
def test_a_colour_picture_is_resized_as_pillow_does(size):
    picture = gradient("RGB", size)
    seen, box = colour_view(np.asarray(picture), 48)
    expected = np.asarray(picture.resize((48, 48), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(seen - expected).max() <= 1
    assert box.tolist() == [0.0, 0.0, 1.0, 1.0]


def test_a_colour_picture_of_the_right_size_is_left_as_it_is():
    picture = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    np.testing.assert_array_equal(colour_view(picture, 48)[0], picture)


def photo(size: tuple[int, int]) -> Image.Image:
    """Smooth shapes with grain on them, as a camera makes them: what a coarse decoder or filter would change."""
    width, height = size
    grain = np.random.default_rng(0).normal(0, 12, (height, width, 3))
    return Image.fromarray((np.asarray(gradient("RGB", size)) + grain).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("size", [(500, 375), (120, 161)])
def test_a_jpeg_is_seen_as_pillow_sees_it(size, subsampling, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(photo(size), "JPEG", quality=85, subsampling=subsampling, exif=exif)
    seen, _ = View("colour", 96).of_bytes(tf.constant(content))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    expected = np.asarray(upright.resize((96, 96), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(seen.numpy() - expected).max() <= 1
