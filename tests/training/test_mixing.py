"""MixUp and CutMix: what becomes of pictures and of their labels."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from training.mixing import Mix

SIZE, BATCH, CLASSES = 16, 64, 10


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    """Image n is n everywhere, so that a pixel says whose it is."""
    images = np.broadcast_to(np.arange(BATCH, dtype="float32")[:, None, None, None], (BATCH, SIZE, SIZE, 3))
    return images, np.eye(CLASSES, dtype="float32")[np.arange(BATCH) % CLASSES]


def mixed(layer: Mix, batch) -> tuple[np.ndarray, np.ndarray]:
    return tuple(keras.ops.convert_to_numpy(tensor) for tensor in layer(list(batch), training=True))


def shares(batch, targets: np.ndarray) -> np.ndarray:
    """How much of the label an image has kept, (N,); NaN where its partner has the same label."""
    own, other = np.argmax(batch[1], axis=1), np.argmax(batch[1][::-1], axis=1)
    kept = targets[np.arange(BATCH), own]
    return np.where(own == other, np.nan, kept)


@pytest.mark.parametrize("alphas", [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_pictures_and_labels_are_mixed_by_the_same_shares(batch, alphas):
    images, targets = mixed(Mix(*alphas, seed=1), batch)
    np.testing.assert_allclose(targets.sum(axis=1), 1.0, rtol=1e-5)
    index, partner = np.arange(BATCH, dtype="float32"), np.arange(BATCH, dtype="float32")[::-1]
    expected = shares(batch, targets) * index + (1 - shares(batch, targets)) * partner
    known = np.isfinite(expected)
    assert known.sum() > BATCH / 2
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3))[known], expected[known], rtol=1e-3, atol=1e-3)
    assert len(np.unique(np.round(shares(batch, targets)[known], 3))) > BATCH / 8


def test_mixup_blends_and_cutmix_pastes(batch):
    blended, _ = mixed(Mix(1.0, 0.0, seed=1), batch)
    assert np.all(blended.std(axis=(1, 2, 3)) < 1e-4)
    pasted, _ = mixed(Mix(0.0, 1.0, seed=1), batch)
    for number, image in enumerate(pasted):
        assert set(np.unique(image)) <= {number, BATCH - 1 - number}


def test_nothing_is_mixed_outside_training(batch):
    images, targets = Mix(0.4, 1.0, seed=1)(list(batch), training=False)
    np.testing.assert_array_equal(images, batch[0])
    np.testing.assert_array_equal(targets, batch[1])


def test_the_seed_decides(batch):
    one, again, other = (mixed(Mix(0.4, 1.0, seed=seed), batch)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
