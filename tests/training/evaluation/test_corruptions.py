"""Corrupted images: what each does, at every size and in grey and colour."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from training.evaluation.corruptions import CORRUPTIONS, encoded


def decoded(content: bytes) -> np.ndarray:
    values = np.asarray(Image.open(io.BytesIO(content)))
    return values if values.ndim == 3 else values[..., None]


def square(height: int = 28, width: int = 28, channels: int = 1) -> np.ndarray:
    image = np.full((height, width, channels), 20, np.uint8)
    image[height // 4 : height // 2, width // 4 : width // 2] = 220
    return image


@pytest.mark.parametrize("shape", [(28, 28, 1), (40, 30, 3)])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_keeps_shape_and_changes_more_the_stronger_it_is(name, shape):
    image = square(*shape)
    changes = []
    for strength in CORRUPTIONS[name].strengths:
        (content,) = encoded(name, strength, [image])
        found = decoded(content)
        assert found.shape == image.shape
        changes.append(np.abs(found.astype(int) - image).mean())
    assert changes[0] > 0
    assert changes == sorted(changes)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_images_are_corrupted_alike_each_time(name):
    strength = CORRUPTIONS[name].strengths[-1]
    assert encoded(name, strength, [square()] * 3) == encoded(name, strength, [square()] * 3)


@pytest.mark.parametrize("name", sorted(CORRUPTIONS.keys() - {"jpeg", "inverted"}))
def test_the_strength_that_changes_nothing(name):
    (content,) = encoded(name, CORRUPTIONS[name].untouched, [square(channels=3)])
    assert np.array_equal(decoded(content), square(channels=3))


@pytest.mark.parametrize("name", ["rotation", "shear", "scale", "translation"])
def test_what_comes_in_at_the_borders_has_their_colour(name):
    image = square(30, 40, 3)
    (content,) = encoded(name, CORRUPTIONS[name].strengths[-1], [image])
    found = decoded(content)
    assert found.min() == 20
    assert np.all(np.concatenate([found[0], found[-1]]) == 20)


def test_negatives_and_jpeg():
    (negative,) = encoded("inverted", 1.0, [square()])
    assert np.array_equal(decoded(negative), 255 - square())
    (jpeg,) = encoded("jpeg", 40.0, [square()])
    assert Image.open(io.BytesIO(jpeg)).format == "JPEG"
