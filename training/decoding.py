"""Encoded images to pixels, upright and over white: in the served graph, whatever comes.

Everything is TensorFlow ops on one image, mapped over the batch. Where TensorFlow's decoders unpack too much or get a
format wrong, the bytes are looked at first.
"""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

MAX_PIXELS = 16_000_000
DctMethod = Literal["INTEGER_FAST", "INTEGER_ACCURATE"]
FORMATS = "PNG, JPEG, GIF or BMP"


def decode(image_bytes: tf.Tensor, dct_method: DctMethod = "INTEGER_FAST") -> tf.Tensor:
    """Decodes one encoded image, upright and over white.

    Args:
        image_bytes: string (), a PNG, JPEG, GIF (first frame) or BMP.
        dct_method: of JPEGs. The accurate one gives what other libraries give, to a level or two.

    Returns:
        uint8 (H, W, 3), 0..255.

    Raises (when run):
        InvalidArgumentError: empty, undecodable, or more than 16 megapixels by its header.
    """
    size = tf.strings.length(image_bytes)
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(image_bytes, 0, 34), tf.uint8, fixed_length=None), tf.int32)
    kind = _kind(image_bytes)
    with tf.control_dependencies(
        [
            tf.debugging.Assert(size > 0, ["image_bytes: expected an encoded image, got zero bytes"]),
            tf.debugging.Assert(
                kind >= 0, [f"image_bytes: expected an encoded {FORMATS} image, got", size, "bytes of something else"]
            ),
        ]
    ):
        kind = tf.identity(kind)

    def png():
        height, width = _big_endian(header, 20), _big_endian(header, 16)
        with _size_checked(height, width):
            rgba = tf.io.decode_png(image_bytes, channels=4)

        def over_white():
            alpha = tf.cast(rgba[..., 3:], tf.float32) / 255.0
            return tf.cast(tf.round(tf.cast(rgba[..., :3], tf.float32) * alpha + 255.0 * (1.0 - alpha)), tf.uint8)

        # TensorFlow's decoder gives opaque pixels of 1, 2 or 4 bits the alpha 1, 3 or 15 instead of 255
        depth = tf.minimum(_bytes_at(header, 24)[0], 8)
        opaque = tf.cast(tf.bitwise.left_shift(1, depth) - 1, tf.uint8)
        return tf.cond(tf.reduce_all(rgba[..., 3] == opaque), lambda: rgba[..., :3], over_white)

    def jpeg():
        shape = tf.image.extract_jpeg_shape(image_bytes)
        with _size_checked(shape[0], shape[1]):
            return _upright(
                tf.io.decode_jpeg(image_bytes, channels=3, dct_method=dct_method), _exif_orientation(image_bytes)
            )

    def gif():
        frame, top, left, height, width = _first_frame(image_bytes)
        image = tf.io.decode_image(frame, channels=3, expand_animations=False)
        return 255 - tf.image.pad_to_bounding_box(255 - image, top, left, height, width)

    def bmp():
        height, width = tf.abs(_little_endian(header, 22)), _little_endian(header, 18)
        bits, compression = _bytes_at(header, 28)[0], _little_endian(header, 30)
        plain = tf.reduce_any(compression == tf.constant([0, 3]))  # 3: with bit masks, as 32 bits often are
        known = tf.debugging.Assert(
            tf.reduce_any(bits == tf.constant([8, 24, 32])) & plain,
            [
                "image_bytes: expected an uncompressed BMP of 8, 24 or 32 bits a pixel, got bits and compression",
                bits,
                compression,
            ],
        )
        with _size_checked(height, width), tf.control_dependencies([known]):
            image = tf.io.decode_bmp(image_bytes)  # (H, W, 1, 3 or 4)
        return tf.cond(
            bits == 8,
            lambda: tf.gather(_bmp_palette(image_bytes, header), tf.cast(image[..., 0], tf.int32)),
            lambda: image[..., :3],
        )

    image = tf.switch_case(kind, [png, jpeg, gif, bmp])
    image.set_shape((None, None, 3))
    return image


def _kind(image_bytes: tf.Tensor) -> tf.Tensor:
    """0 PNG, 1 JPEG, 2 GIF, 3 BMP, -1 anything else, by the first bytes."""
    magics = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM")
    kind = tf.constant(-1)
    for number, magic in enumerate(magics):
        kind = tf.where(tf.strings.substr(image_bytes, 0, len(magic)) == magic, number, kind)
    return kind


def _size_checked(height: tf.Tensor, width: tf.Tensor):
    # int64: the header of a bomb may claim 2^31 x 2^31
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    broken = f"image_bytes: expected an encoded {FORMATS} image, got a truncated or broken one: height and width are"
    large = f"image_bytes: expected an image of at most {MAX_PIXELS} pixels, got one of height and width"
    return tf.control_dependencies(
        [
            tf.debugging.Assert((height > 0) & (width > 0), [broken, height, width]),
            tf.debugging.Assert(pixels <= MAX_PIXELS, [large, height, width]),
        ]
    )


def _big_endian(header: tf.Tensor, at: int) -> tf.Tensor:
    return tf.reduce_sum(_bytes_at(header, at) * tf.constant([1 << 24, 1 << 16, 1 << 8, 1]))


def _little_endian(header: tf.Tensor, at: int) -> tf.Tensor:
    return tf.reduce_sum(_bytes_at(header, at) * tf.constant([1, 1 << 8, 1 << 16, 1 << 24]))


def _bytes_at(header: tf.Tensor, at: int) -> tf.Tensor:
    """Four bytes; zeros where the file is too short, which then fails the check of its size."""
    return tf.concat([header, tf.zeros([32], tf.int32)], axis=0)[at : at + 4]


def _bmp_palette(bmp: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """The colours of a BMP of 8 bits a pixel, uint8 (256, 3): TensorFlow's decoder gives their indices alone."""
    start = 14 + _little_endian(header, 14)  # behind the file header and the bitmap header, whose size is there
    table = tf.strings.substr(
        tf.strings.join([bmp, "\0" * 1024]), tf.clip_by_value(start, 0, tf.strings.length(bmp)), 1024
    )
    return tf.reshape(tf.io.decode_raw(table, tf.uint8), (256, 4))[:, 2::-1]  # blue, green, red, unused


def _first_frame(gif: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """A GIF of the first frame alone, transparent pixels white; its top and left, height and width of the whole.

    The decoder unpacks all frames, which would let a small file fill the memory, and what no pixel covers it makes
    black. Blocks are walked as the format says (GIF89a, https://www.w3.org/Graphics/GIF/spec-gif89a.txt).
    """
    data = tf.cast(tf.io.decode_raw(gif, tf.uint8), tf.int32)
    data = tf.concat([data, tf.zeros([16], tf.int32)], axis=0)  # a truncated file reads zeros, which end every walk
    length = tf.strings.length(gif)

    def word(at):
        return data[at] + 256 * data[at + 1]

    def color_table(packed):
        return tf.where(packed >= 128, 3 * tf.bitwise.left_shift(2, tf.bitwise.bitwise_and(packed, 7)), 0)

    def skip_sub_blocks(at):
        end = tf.while_loop(
            lambda at: (at < length) & (data[tf.minimum(at, length)] > 0),
            lambda at: [at + 1 + data[at]],
            [at],
        )[0]
        return tf.minimum(end + 1, length)

    at = tf.minimum(13 + color_table(data[10]), length)
    extension, graphic_control, image_descriptor = 0x21, 0xF9, 0x2C
    at, control = tf.while_loop(
        lambda at, control: data[at] == extension,
        lambda at, control: [skip_sub_blocks(at + 2), tf.where(data[at + 1] == graphic_control, at, control)],
        [at, length],  # past the end: zeros, nothing is transparent
    )
    left, top, width, height = word(at + 1), word(at + 3), word(at + 5), word(at + 7)
    screen_width, screen_height = tf.maximum(word(6), left + width), tf.maximum(word(8), top + height)
    is_image = tf.debugging.Assert(
        data[at] == image_descriptor, ["image_bytes: expected a GIF with a frame, got a truncated or empty one"]
    )
    with tf.control_dependencies([is_image]), _size_checked(height, width), _size_checked(screen_height, screen_width):
        end = skip_sub_blocks(tf.minimum(at + 10 + color_table(data[at + 9]) + 1, length))
        gif = tf.identity(gif)  # what is cut out of it below waits for the checks
    size, trailer = tf.strings.substr(gif, at + 5, 4), b"\x3b"
    frame = tf.strings.substr(gif, 0, end) + trailer
    frame = _overwritten(_overwritten(frame, 6, size), at + 1, b"\0\0\0\0")  # the frame becomes the whole
    own_table = data[at + 9] >= 128
    entries = color_table(tf.where(own_table, data[at + 9], data[10]))
    entry = 3 * data[control + 6]
    transparent = (data[control + 3] % 2 == 1) & (entry < entries)

    def made_white():
        white = _overwritten(frame, tf.where(own_table, at + 10, 13) + entry, b"\xff\xff\xff")
        return _overwritten(white, control + 3, b"\0")

    return tf.cond(transparent, made_white, lambda: frame), top, left, screen_height, screen_width


def _overwritten(data: tf.Tensor, at: tf.Tensor | int, new: tf.Tensor | bytes) -> tf.Tensor:
    length = tf.strings.length(data)
    rest = tf.minimum(at + tf.strings.length(new), length)  # the file may be truncated
    return tf.strings.join([tf.strings.substr(data, 0, at), new, tf.strings.substr(data, rest, length - rest)])


def _exif_orientation(jpeg: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG, 1..8; 1 (upright) if it says nothing.

    The tag 0x0112 is a SHORT with one value: twelve fixed bytes in either byte order, looked for in the first 64 KiB
    after the mark "Exif" (EXIF 2.32, 4.6.2).
    """
    head = tf.strings.substr(jpeg, 0, 65536)
    data = tf.cast(tf.io.decode_raw(head, tf.uint8), tf.int32)
    data = tf.concat([data, tf.zeros([16], tf.int32)], axis=0)

    def positions(pattern: bytes) -> tf.Tensor:
        count = tf.shape(data)[0] - len(pattern)
        hit = tf.ones([count], tf.bool)
        for offset, byte in enumerate(pattern):
            hit &= data[offset : offset + count] == byte
        return tf.cast(tf.where(hit)[:, 0], tf.int32)

    def value(pattern: bytes, at: int) -> tf.Tensor:
        found = positions(pattern)
        return tf.cond(tf.shape(found)[0] > 0, lambda: data[found[0] + at], lambda: tf.constant(1))

    def read():
        little = value(b"\x12\x01\x03\x00\x01\x00\x00\x00", 8)
        big = value(b"\x01\x12\x00\x03\x00\x00\x00\x01", 9)
        orientation = tf.where(little == 1, big, little)
        return tf.where((orientation >= 1) & (orientation <= 8), orientation, 1)

    # most files have no EXIF: one look at the usual place, the first segment, spares them the search
    mark = tf.strings.substr(tf.strings.join([head, "\0" * 16]), 6, 4)
    second = tf.strings.substr(tf.strings.join([head, "\0" * 32]), 24, 4)  # after a JFIF segment of 18 bytes
    return tf.cond((mark == b"Exif") | (second == b"Exif"), read, lambda: tf.constant(1))


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undoes an EXIF orientation."""
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    # after the transposition of 5..8: 2, 3, 6, 7 are mirrored left-right, 3, 4, 7, 8 upside down
    mirror = tf.reduce_any(orientation == tf.constant([2, 3, 6, 7]))
    flip = tf.reduce_any(orientation == tf.constant([3, 4, 7, 8]))
    image = tf.cond(mirror, lambda: image[:, ::-1], lambda: image)
    return tf.cond(flip, lambda: image[::-1], lambda: image)
