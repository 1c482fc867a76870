"""The explanation methods: their equations on small nets, by hand and by what they promise, and their errors."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.explanation import cams, gradients
from training.explanation.errors import ExplanationError
from training.explanation.methods import METHODS, method
from training.explanation.network import Network
from training.explanation.perturbation import occlusion

layers = keras.layers


def linear_net() -> keras.Model:
    """Logits that are one product of the pixels with weights each."""
    inputs = keras.Input((8, 8, 3))
    logits = layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(seed=0), name="logits")
    return keras.Model(inputs, layers.Activation("softmax")(logits(layers.Flatten()(inputs))))


@pytest.mark.parametrize("name", METHODS)
def test_one_map_an_image_the_same_every_time(name, network, images, class_ids):
    maps = METHODS[name].maps(network, images, class_ids)
    assert maps.dtype == np.float32
    assert maps.shape[0] == len(images)
    assert maps.ndim == 3
    assert np.isfinite(maps).all()
    assert np.ptp(maps) > 0
    np.testing.assert_array_equal(maps, METHODS[name].maps(network, images, class_ids))


@pytest.mark.parametrize("name", METHODS)
def test_other_images_of_the_call_do_not_matter(name, network, images, class_ids):
    together = METHODS[name].maps(network, images[:20], class_ids[:20])
    alone = METHODS[name].maps(network, images[17:18], class_ids[17:18])
    np.testing.assert_allclose(alone[0], together[17], atol=1e-5 * np.abs(together[17]).max())


@pytest.mark.parametrize("name", METHODS)
def test_what_the_entry_says_is_so(name, network, images, class_ids):
    entry = METHODS[name]
    maps = entry.maps(network, images, class_ids)
    assert entry.signed or (maps >= 0).all()
    other = entry.maps(network, images, (class_ids + 1) % 4)
    assert np.array_equal(maps, other) != entry.class_dependent
    assert entry.function.__doc__.count("Source: ") == 1
    if entry.linear and not entry.signed:
        np.testing.assert_array_equal(np.maximum(entry.linear(network, images, class_ids), 0.0), maps)


def test_maps_have_the_resolution_of_what_they_look_at(network, images, class_ids):
    sizes = {name: entry.maps(network, images[:2], class_ids[:2]).shape[1] for name, entry in METHODS.items()}
    assert {size for name, size in sizes.items() if METHODS[name].layer} == {7}
    assert sizes["saliency"] == sizes["smooth_grad"] == sizes["integrated_gradients"] == sizes["shap"] == 16
    assert sizes["occlusion"] == 7
    assert METHODS["layer_cam"].maps(network.at("early"), images[:2], class_ids[:2]).shape == (2, 14, 14)


def test_shap_values_add_up_to_what_the_image_adds_to_the_logit(images):
    model = linear_net()
    network = Network(model, background=images[20:, :8, :8])
    shown, class_ids = images[:3, :8, :8], np.array([0, 2, 1])
    state = np.random.get_state()[1].copy()
    maps = METHODS["shap"].maps(network, shown, class_ids)
    np.testing.assert_array_equal(state, np.random.get_state()[1])
    exact = (shown - images[20:, :8, :8].mean(axis=0)) * model.get_layer("logits").kernel.numpy().T[class_ids].reshape(
        3, 8, 8, 3
    )
    assert np.corrcoef(maps.ravel(), exact.sum(axis=-1).ravel())[0, 1] > 0.9  # a sample of 100 of the background
    assert maps.min() < 0 < maps.max()


def test_gradients_are_those_of_the_logit(network, images, class_ids):
    logits = keras.Model(network.model.input, network.model.get_layer("logits").output)
    inputs = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        chosen = tf.gather(logits(inputs), class_ids, batch_dims=1)
    np.testing.assert_allclose(network.input_gradients(images, class_ids), tape.gradient(chosen, inputs), atol=1e-4)
    np.testing.assert_allclose(network.logits(images), logits(images), atol=1e-4)


def test_hires_cam_is_grad_cam_where_pooling_follows(images, class_ids, small_net):
    pooled = Network(small_net(pooled=True), "cam")
    hires = cams.hires_cam(pooled, images, class_ids)
    assert (hires < 0).any()
    np.testing.assert_allclose(hires, cams.signed_grad_cam(pooled, images, class_ids), atol=1e-6)
    # and its sum is the logit less the bias of the logits
    bias = pooled.model.get_layer("logits").bias.numpy()[class_ids]
    logits = pooled.logits(images)[np.arange(len(images)), class_ids]
    np.testing.assert_allclose(hires.sum(axis=(1, 2)) + bias, logits, atol=1e-4)


def test_hires_cam_is_not_grad_cam_elsewhere(network, images, class_ids):
    hires, grad = (f(network, images, class_ids) for f in (cams.hires_cam, cams.signed_grad_cam))
    assert np.abs(hires - grad).max() > 0.1 * np.abs(grad).max()


def test_grad_cam_plus_plus_bears_logits_whose_exponential_overflows(images, class_ids, small_net):
    model = small_net(pooled=False)
    expected = cams.grad_cam_plus_plus(Network(model, "cam"), images, class_ids)
    logits = model.get_layer("logits")
    kernel, bias = logits.get_weights()
    logits.set_weights([kernel, bias + 1000.0])
    np.testing.assert_array_equal(cams.grad_cam_plus_plus(Network(model, "cam"), images, class_ids), expected)


def test_eigen_cam_is_the_best_map_that_one_direction_gives(network, images):
    maps = cams.eigen_cam(network, images[:5], np.zeros(5, int))
    activations = next(network.activations(images[:5]))
    for one, activation in zip(maps, activations, strict=True):
        matrix = activation.reshape(-1, activation.shape[-1]).astype("float64")
        values, vectors = np.linalg.eigh(matrix.T @ matrix)
        expected = matrix @ vectors[:, -1]
        np.testing.assert_allclose(one.ravel(), np.abs(expected), atol=1e-4)  # behind a ReLU all have one sign
        assert (one**2).sum() == pytest.approx(values[-1], rel=1e-4)


def test_score_cam_with_some_channels_takes_those_that_vary_most(network, images, class_ids):
    every = cams.score_cam(network, images[:3], class_ids[:3])
    np.testing.assert_allclose(cams.score_cam(network, images[:3], class_ids[:3], channels=6), every, rtol=1e-4)
    activation = next(network.activations(images[:1]))[0]
    most = activation[..., activation.std(axis=(0, 1)).argmax()]
    one = cams.score_cam(network, images[:1], class_ids[:1], channels=1)[0]
    np.testing.assert_allclose(one / one.max(), most / most.max(), atol=1e-6)


def test_score_cam_hides_with_the_baseline(images, class_ids, small_net):
    model = small_net(pooled=False)
    grey, black = (cams.score_cam(Network(model, "cam", b), images[:3], class_ids[:3]) for b in (0.0, -1.0))
    assert np.abs(grey - black).max() > 1e-3


@pytest.mark.parametrize("baseline", [0.0, -1.0])
def test_integrated_gradients_are_complete(baseline, images, class_ids, small_net):
    network = Network(small_net(pooled=False), baseline=baseline)
    maps = gradients.integrated_gradients(network, images, class_ids, steps=400)
    rows = np.arange(len(images))
    difference = (network.logits(images) - network.logits(np.full_like(images, baseline)))[rows, class_ids]
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), difference, atol=5e-3 * np.abs(difference).max())


def test_what_a_linear_net_makes_of_gradients(images):
    network = Network(linear_net(), baseline=0.5)
    images, class_ids = images[:4, :8, :8], np.array([0, 1, 2, 0])
    weights = network.model.get_layer("logits").get_weights()[0].reshape(8, 8, 3, 3)[..., class_ids]  # (8, 8, 3, N)
    weights = np.moveaxis(weights, -1, 0)
    np.testing.assert_allclose(gradients.saliency(network, images, class_ids), np.abs(weights).max(axis=-1), atol=1e-6)
    np.testing.assert_allclose(
        gradients.smooth_grad(network, images, class_ids, samples=3), np.abs(weights).max(axis=-1), atol=1e-6
    )
    expected = ((images - 0.5) * weights).sum(axis=-1)
    integrated = gradients.integrated_gradients(network, images, class_ids, steps=1)
    np.testing.assert_allclose(integrated, expected, atol=1e-5)
    blocks = expected.reshape(-1, 4, 2, 4, 2).sum(axis=(2, 4))  # what a hidden square takes from the logit
    np.testing.assert_allclose(occlusion(network, images, class_ids, cells=4), blocks, atol=1e-5)


def test_occlusion_of_nothing_takes_nothing(images):
    network = Network(linear_net(), baseline=0.5)
    image = np.full((1, 8, 8, 3), 0.5, np.float32)
    assert not occlusion(network, image, np.array([1])).any()
    image[0, 0, 0] = 1.0
    losses = occlusion(network, image, np.array([1]), cells=4)
    assert losses[0, 0, 0] != 0.0
    assert np.count_nonzero(losses) == 1


def test_the_contrast_of_a_linear_method_is_the_map_of_the_difference(network, images, class_ids, small_net):
    against = (class_ids + 1) % 4
    contrast = METHODS["integrated_gradients"].contrast(network, images, class_ids, against)
    assert METHODS["grad_cam"].contrast(network, images, class_ids, against).min() < 0
    model = small_net(pooled=False)
    kernel, bias = model.get_layer("logits").get_weights()
    for first in range(4):  # a net whose logit is the difference of two
        rows = class_ids == first
        second = (first + 1) % 4
        model.get_layer("logits").set_weights(
            [np.repeat((kernel[:, first] - kernel[:, second])[:, None], 4, axis=1), bias]
        )
        expected = gradients.integrated_gradients(Network(model), images[rows], class_ids[rows])
        np.testing.assert_allclose(contrast[rows], expected, atol=1e-4)


def test_no_contrast_without_classes(network, images, class_ids):
    with pytest.raises(ExplanationError, match=r"eigen_cam gives every class the same map.*expected one of grad_cam"):
        METHODS["eigen_cam"].contrast(network, images, class_ids, class_ids)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("gradcam", r"no method 'gradcam' \(did you mean 'grad_cam'\?\); the methods are grad_cam, "),
        ("Smooth_Grad", r"did you mean 'smooth_grad'"),
        ("zzz", r"no method 'zzz'; the methods are"),
    ],
)
def test_an_unknown_method(given, message):
    with pytest.raises(ExplanationError, match=message):
        method(given)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("conv_22", r"layer 'conv_22' does not exist \(did you mean 'conv_2' or "),
        ("average", r"layer 'average' has no positions to be drawn.*expected one of the 9 layers of small"),
    ],
)
def test_an_unknown_layer(layer, message, network):
    with pytest.raises(ExplanationError, match=message):
        network.at(layer)


def test_a_cam_without_a_layer(network, images, class_ids):
    with pytest.raises(ExplanationError, match="grad_cam looks at a layer: expected a network opened at one"):
        METHODS["grad_cam"].maps(network.at(None), images, class_ids)


@pytest.mark.parametrize(
    ("class_ids", "message"),
    [
        (np.array([0, 4]), r"class_ids: expected 0\.\.3, got 0 to 4"),
        (np.array([-1, 1]), r"class_ids: expected 0\.\.3, got -1 to 1"),
        (np.array([1]), r"expected one whole number an image, shape \(2,\), got int64 \(1,\)"),
        (np.array([0.0, 1.0]), r"expected one whole number an image.*got float64"),
    ],
)
@pytest.mark.parametrize("name", METHODS)
def test_classes_that_do_not_exist(name, class_ids, message, network, images):
    with pytest.raises(ExplanationError, match=message):
        METHODS[name].maps(network, images[:2], class_ids)


def test_images_of_another_shape(network, images, class_ids):
    with pytest.raises(ExplanationError, match=r"expected float32 \(N, 16, 16, 3\).*got \(50, 8, 16, 3\)"):
        METHODS["saliency"].maps(network, images[:, :8], class_ids)


def test_a_model_without_logits():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax", name="out")(layers.Flatten()(inputs)))
    with pytest.raises(ExplanationError, match="expected a flat model with a layer 'logits'.*out"):
        Network(model)
