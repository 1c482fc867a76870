"""Augmentation layers: what they may do to an image, and how often."""

from __future__ import annotations

import numpy as np
import pytest

from training.augment import RandomErasing, ShiftAndFlip, ToModelInput, to_model_input


def images(count: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (count, 28, 28, channels)).astype("float32")


@pytest.mark.parametrize("layer", [ShiftAndFlip(2, flip=True, seed=1), RandomErasing(1.0, (0.1, 0.2), seed=1)])
def test_nothing_happens_outside_training(layer):
    sent = images(4)
    np.testing.assert_array_equal(layer(sent), sent)
    np.testing.assert_array_equal(layer(sent, training=False), sent)
    assert not np.array_equal(layer(sent, training=True), sent)


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    height, width = image.shape[:2]
    padded = np.pad(image, ((abs(down),) * 2, (abs(right),) * 2, (0, 0)))
    return padded[abs(down) - down :, abs(right) - right :][:height, :width]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_is_moved_and_none_made_up(flip, channels):
    padding, sent = 2, images(64, channels)
    seen = set()
    for image, result in zip(
        sent, np.asarray(ShiftAndFlip(padding, flip=flip, seed=1)(sent, training=True)), strict=True
    ):
        moves = [
            (mirrored, down, right)
            for mirrored in (False, True)[: 1 + flip]
            for down in range(-padding, padding + 1)
            for right in range(-padding, padding + 1)
            if np.array_equal(result, shifted(image[:, ::-1] if mirrored else image, down, right))
        ]
        assert len(moves) == 1
        seen.add(moves[0])
    assert {down for _, down, _ in seen} == {right for _, _, right in seen} == set(range(-padding, padding + 1))
    assert {mirrored for mirrored, _, _ in seen} == ({False, True} if flip else {False})


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_erasing_is_as_likely_as_said(probability):
    sent = images(1000)
    erased = np.asarray(RandomErasing(probability, (0.05, 0.2), seed=1)(sent, training=True)) != sent
    share = erased.any(axis=(1, 2, 3)).mean()
    assert share == pytest.approx(probability, abs=4 * np.sqrt(probability * (1 - probability) / 1000))


def test_what_is_erased_is_a_rectangle_of_the_area_said():
    sent = images(500)
    result = np.asarray(RandomErasing(1.0, (0.05, 0.2), seed=1)(sent, training=True))
    assert result.min() >= 0
    assert result.max() <= 255
    heights, widths = [], []
    for changed in (result != sent)[..., 0]:
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        heights.append(rows[-1] - rows[0] + 1)
        widths.append(columns[-1] - columns[0] + 1)
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.9
    heights, widths = np.array(heights), np.array(widths)
    # edges fall between pixels: up to one pixel more or less on each axis
    assert ((heights + 1) * (widths + 1) >= 0.05 * 784).all()
    assert ((heights - 1) * (widths - 1) <= 0.2 * 784).all()
    assert heights.max() > 1.5 * widths.min()
    assert widths.max() > 1.5 * heights.min()


def make_shift(seed: int) -> ShiftAndFlip:
    return ShiftAndFlip(2, flip=True, seed=seed)


def make_erasing(seed: int) -> RandomErasing:
    return RandomErasing(0.5, (0.05, 0.2), seed=seed)


@pytest.mark.parametrize("make", [make_shift, make_erasing])
def test_the_seed_decides(make):
    sent = images(32)
    first, layer = np.asarray(make(1)(sent, training=True)), make(1)
    np.testing.assert_array_equal(layer(sent, training=True), first)
    assert not np.array_equal(layer(sent, training=True), first)  # the next batch is another draw
    assert not np.array_equal(make(2)(sent, training=True), first)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_size", [28, 48, 96])
def test_model_input(channels, image_size):
    sent = images(3, channels)
    sent[0], sent[1] = 0.0, 255.0
    result = np.asarray(to_model_input(sent.astype(np.uint8), image_size))
    assert result.shape == (3, image_size, image_size, 3)
    assert result.dtype == np.float32
    assert (result[0] == -1.0).all()
    assert (result[1] == 1.0).all()
    assert np.abs(result).max() <= 1.0
    np.testing.assert_array_equal(ToModelInput(image_size)(sent), result)
