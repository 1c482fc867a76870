"""Ours against tf-keras-vis: 50 images of a small net, and a few of the version that ships at two of its layers."""

from __future__ import annotations

import numpy as np
import pytest

from training.explanation import tf_keras_vis
from training.explanation.errors import ExplanationError
from training.explanation.methods import METHODS
from training.explanation.network import Network

COUNT = 12  # images of the version that ships


@pytest.fixture
def same_noise(monkeypatch) -> None:
    """tf-keras-vis draws the noise of all samples at once from numpy's global state; here it gets the one we draw."""

    def normal(mean, spread, shape):
        generator = np.random.default_rng(0)
        draws = [generator.standard_normal(shape[2:], dtype=np.float32) for _ in range(shape[0])]
        return mean + spread * np.stack(draws)[:, None]

    monkeypatch.setattr(np.random, "normal", normal)


def scaled_to_peak(
    name: str, network: Network, images: np.ndarray, class_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ours and theirs, each map with its peak at 1: Grad-CAM++ of theirs has a factor exp(logit)."""
    both = METHODS[name].maps(network, images, class_ids), tf_keras_vis.maps(METHODS[name], network, images, class_ids)
    assert both[0].shape == both[1].shape
    peaks = [maps.max(axis=(1, 2), keepdims=True) for maps in both]
    np.testing.assert_array_equal(peaks[0] > 0, peaks[1] > 0)
    return tuple(maps / np.where(peak > 0, peak, 1.0) for maps, peak in zip(both, peaks, strict=True))


@pytest.mark.usefixtures("same_noise")
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        (name, layer)
        for name in tf_keras_vis.NAMES
        for layer in (("cam", "early", "norm") if METHODS[name].layer else (None,))
    ],
)
def test_small_net(name, layer, network, images, class_ids):
    ours, theirs = scaled_to_peak(name, network.at(layer), images, class_ids)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.usefixtures("same_noise")
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("grad_cam", "block_16_project"),
        ("grad_cam", "block_13_expand_relu"),
        ("grad_cam_plus_plus", "block_13_expand_relu"),
        ("layer_cam", "block_6_expand_relu"),
        ("saliency", None),
    ],
)
def test_the_version_that_ships(name, layer, shipped):
    images = shipped.to_model(shipped.test_images().images[:COUNT])
    network = shipped.network(layer)
    ours, theirs = scaled_to_peak(name, network, images, network.predicted(images))
    difference = np.abs(ours - theirs).max(axis=(1, 2))
    # where a ReLU6's input is 0 or 6 up to rounding, its gradient is either, and folding rounds otherwise
    assert np.median(difference) <= 1e-4
    assert difference.mean() <= 0.02


def test_score_cam_of_the_version_that_ships(shipped):
    """With a baseline of zero, as tf-keras-vis has it: the middle grey."""
    images = shipped.to_model(shipped.test_images().images[:1])
    network = Network(shipped.model, "block_16_project", baseline=0.0)
    ours, theirs = scaled_to_peak("score_cam", network, images, network.predicted(images))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_its_noise_repeats_itself(network, images, class_ids):
    state = np.random.get_state()[1].copy()
    maps = [tf_keras_vis.maps(METHODS["smooth_grad"], network, images[:3], class_ids[:3]) for _ in range(2)]
    np.testing.assert_array_equal(*maps)
    np.testing.assert_array_equal(state, np.random.get_state()[1])
    ours = METHODS["smooth_grad"].maps(network, images[:3], class_ids[:3])
    for one, other in zip(ours, maps[0], strict=True):  # other noise, about the same map
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(tf_keras_vis.NAMES)))
def test_what_it_does_not_have(name, network, images, class_ids):
    with pytest.raises(ExplanationError, match=f"tf-keras-vis has no {name}; expected one of grad_cam, "):
        tf_keras_vis.maps(METHODS[name], network, images, class_ids)
