"""From what a person has (a photo, a shop picture, a test image) to what the model was trained on: in the served graph.

Fashion-MNIST was made from shop pictures: trimmed, longest edge to 28 pixels, centred, negated, grey
(Xiao et al., 2017, https://arxiv.org/abs/1708.07747, figure 1). The same is done here to any picture. An image that is
28x28 grey already goes only through the polarity, so that the official test set is left as it is. A model of colour
images was trained on pictures that were resized as they are, and so is what it is sent.

Everything is TensorFlow ops on one image, mapped over the batch: it becomes part of the SavedModel.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from training.backbones import Scaling
from training.datasets.base import Preprocessing
from training.decoding import decode

WORKING_SIZE = 256  # pixels; larger pictures are first brought down to this, which also averages noise away
FUZZ = 0.20  # how far from the background (fraction of 255) a pixel must be to belong to the object
ROW_SHARE = 0.06  # fraction of a row's pixels that must belong to the object for the row to be kept
_WHOLE = (0.0, 0.0, 1.0, 1.0)  # the box of a view that shows all of a picture


@dataclass(frozen=True)
class View:
    """What a model sees of a picture: an image as those that it was trained on, (S, S, C)."""

    preprocessing: Preprocessing = "fashion_mnist"
    size: int = 28  # S, in pixels
    scaling: Scaling = "tf"  # of the pixels, behind the view, for the backbone

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.size, self.size, 1 if self.preprocessing == "fashion_mnist" else 3

    def of_bytes(self, image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The view and its box, as `of_picture`, of an encoded image, string ()."""
        if self.preprocessing == "fashion_mnist":
            return self.of_picture(decode(image_bytes))
        return self.of_picture(decode(image_bytes, "INTEGER_ACCURATE"))  # as Pillow, which read what it was trained on

    def of_picture(self, picture: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The view of one picture.

        Args:
            picture: uint8 or float32 (H, W, 3), 0..255.

        Returns:
            view: float32 (S, S, C), whole numbers 0..255.
            box: float32 (4,), ymin, xmin, ymax, xmax: the part of the picture that the view shows, as fractions of the
                picture's height and width. It may reach outside 0..1, where the view is padded.
        """
        if self.preprocessing == "fashion_mnist":
            grey, box = to_view(picture, self.size)
            return grey[..., None], box
        return resized(picture, self.size), tf.constant(_WHOLE)

    def of_pixels(self, pixels: tf.Tensor) -> tf.Tensor:
        """The view, float32 (S, S, C), of an image that has its size already: float32 (S, S, C), 0..255."""
        return polarised(pixels[..., 0])[..., None] if self.preprocessing == "fashion_mnist" else pixels


def resized(picture: tf.Tensor, size: int) -> tf.Tensor:
    """A picture (H, W, 3), 0..255, at (size, size), its aspect not kept: float32, whole numbers 0..255.

    Filtered with a triangle as wide as an output pixel, as Pillow's BILINEAR: equal to it but for rounding.
    """
    values = tf.image.resize(picture, (size, size), antialias=True)
    return tf.clip_by_value(tf.round(values), 0.0, 255.0)


def to_view(image: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """A picture as Fashion-MNIST's authors would have made an image of it.

    Args:
        image: uint8 or float32 (H, W, 3), 0..255.
        size: S, in pixels.

    Returns:
        view: float32 (S, S), whole numbers 0..255, the object light on black.
        box: float32 (4,), ymin, xmin, ymax, xmax: the square of the picture that the view shows, as fractions of the
            picture's height and width. It may reach outside 0..1, where the view is padded.
    """
    shape = tf.shape(image)
    low, high = tf.reduce_min(image, axis=-1), tf.reduce_max(image, axis=-1)
    native = (shape[0] == size) & (shape[1] == size) & tf.reduce_all(low == high)
    whole = tf.constant(_WHOLE)
    view, box = tf.cond(native, lambda: (polarised(_grey(image)), whole), lambda: _converted(image, size))
    return tf.ensure_shape(view, (size, size)), tf.ensure_shape(box, (4,))


def polarised(grey: tf.Tensor) -> tf.Tensor:
    """Light object on dark ground: negates an image (H, W), 0..255, whose border's median is above 127."""
    return tf.where(_median(_border(grey)) > 127.0, 255.0 - grey, grey)


def _converted(image: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = tf.minimum(1.0, WORKING_SIZE / tf.reduce_max(shape))
    working = tf.maximum(tf.cast(tf.round(shape * scale), tf.int32), 1)
    small = tf.cond(
        scale < 1.0,
        lambda: tf.image.resize(image, working, antialias=True),
        lambda: tf.cast(image, tf.float32),
    )
    grey = polarised(_grey(small))
    # half a border of black and half of white has no middle: whichever way it is turned, its upper median is white
    background = tf.minimum(_median(_border(grey)), 127.0)
    grey = tf.maximum(grey - background, 0.0) * 255.0 / (255.0 - background)
    top, bottom = _extent(grey, axis=1)
    left, right = _extent(grey, axis=0)
    cropped = grey[top:bottom, left:right]
    height, width = bottom - top, right - left
    side = tf.maximum(height, width)
    pad_y, pad_x = (side - height) // 2, (side - width) // 2
    square = tf.image.pad_to_bounding_box(cropped[..., None], pad_y, pad_x, side, side)
    view = tf.image.resize(square, (size, size), antialias=True)[..., 0]
    corners = tf.cast(tf.stack([top - pad_y, left - pad_x, top - pad_y + side, left - pad_x + side]), tf.float32)
    box = corners / tf.cast(tf.tile(working, [2]), tf.float32)
    return tf.clip_by_value(tf.round(view), 0.0, 255.0), box


def _grey(image: tf.Tensor) -> tf.Tensor:
    """ITU-R 601 luma, rounded, so that a grey image keeps its values exactly."""
    return tf.round(tf.tensordot(tf.cast(image, tf.float32), tf.constant([0.299, 0.587, 0.114]), axes=1))


def _border(grey: tf.Tensor) -> tf.Tensor:
    return tf.concat([grey[0], grey[-1], grey[:, 0], grey[:, -1]], axis=0)


def _median(values: tf.Tensor) -> tf.Tensor:
    return tf.sort(values)[tf.shape(values)[0] // 2]


def _extent(grey: tf.Tensor, axis: int) -> tuple[tf.Tensor, tf.Tensor]:
    """First and last + 1 index of the rows (axis=1) or columns (axis=0) that hold the object; all if none does."""
    share = tf.reduce_mean(tf.cast(grey > FUZZ * 255.0, tf.float32), axis=axis)
    kept = tf.cast(tf.where(share > ROW_SHARE)[:, 0], tf.int32)
    length = tf.shape(share)[0]
    found = tf.shape(kept)[0] > 0
    return tf.cond(found, lambda: (kept[0], kept[-1] + 1), lambda: (tf.constant(0), length))
