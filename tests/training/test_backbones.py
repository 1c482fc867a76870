"""The registry of backbones, and each of them through folding, freezing and Grad-CAM."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.augment import ToModelInput, to_model_input
from training.backbones import Backbone, BackboneError, backbone, names
from training.model import build_classifier, logits_model
from training.serving_graph import FrozenCore

CLASSES = 3


@pytest.mark.parametrize("name", names())
def test_an_entry_is_flat_and_has_its_layer(name):
    entry = backbone(name)
    model = entry.build(keras.Input((entry.min_image_size, entry.min_image_size, 3)))
    assert entry.name == name
    assert not [layer.name for layer in model.layers if isinstance(layer, keras.Model)]
    assert len(model.get_layer(entry.cam_layer).output.shape) == 4
    assert entry.min_image_size <= entry.image_size


def test_the_default_comes_first():
    assert names()[0] == "mobilenet_v2"


@pytest.mark.parametrize(
    ("given", "hint"),
    [("resnet-18", "did you mean 'resnet18'"), ("EfficientNetV2B0", "did you mean 'efficientnet_v2_b0'"), ("?", "")],
)
def test_an_unknown_name_is_answered_with_the_valid_ones(given, hint):
    with pytest.raises(BackboneError) as caught:
        backbone(given)
    assert repr(given) in str(caught.value)
    assert hint in str(caught.value)
    assert ("did you mean" in str(caught.value)) == bool(hint)
    assert all(name in str(caught.value) for name in names())


def test_a_small_image_is_refused():
    with pytest.raises(BackboneError, match="vgg16 needs images of at least 32 px, got 31"):
        backbone("vgg16").build(keras.Input((31, 31, 3)))


@pytest.mark.parametrize(
    ("name", "sizes", "fits"),
    [
        ("mobilenet_v2", (32, 48, 96), True),
        ("resnet18", (32, 64), True),
        ("resnet18", (96, 224), True),
        ("resnet18", (64, 96), False),  # another stem
        ("tiny_vgg", (64, 64), True),
        ("tiny_vgg", (48, 64), False),  # flattened positions
    ],
)
def test_which_resolutions_share_weights(name, sizes, fits):
    models = [build_classifier(name, CLASSES, size, dropout=0.0, batch_norm_momentum=0.9) for size in sizes]
    shapes = [[tuple(weight.shape) for weight in model.weights] for model in models]
    assert all(one == shapes[0] for one in shapes) == fits
    if fits:
        backbone(name).check_sizes(sizes)
    else:
        with pytest.raises(BackboneError, match=f"{name} has weights of other shapes at {sizes[0]} than at {sizes[1]}"):
            backbone(name).check_sizes(sizes)


@pytest.mark.parametrize(
    ("size", "positions"),
    [(32, 4), (64, 8), (65, 3), (224, 7)],
)
def test_resnet18_is_the_papers(size, positions):
    model = backbone("resnet18").build(keras.Input((size, size, 3)))
    assert model.output_shape == (None, positions, positions, 512)
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    stem = 9 if size <= 64 else 49
    assert trainable == 11_176_512 - (49 - stem) * 3 * 64  # 11,689,512 with the 1,000 classes of ImageNet


def test_tiny_vgg_is_cnn_explainers():
    model = build_classifier("tiny_vgg", 10, 64, dropout=0.0, batch_norm_momentum=0.9)
    assert model.get_layer("max_pool_2").output.shape == (None, 13, 13, 10)
    assert model.get_layer("logits").kernel.shape == (13 * 13 * 10, 10)


def test_scaling_is_what_the_applications_ask_for():
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    for name, module in (
        ("mobilenet_v2", keras.applications.mobilenet_v2),
        ("resnet50", keras.applications.resnet50),
        ("vgg16", keras.applications.vgg16),
    ):
        found = to_model_input(pixels, 32, backbone(name).scaling)
        np.testing.assert_allclose(found, module.preprocess_input(pixels.copy()), atol=1e-4)


def test_efficientnet_scales_as_its_own_first_layers_would():
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    scaled = keras.applications.EfficientNetV2B0(include_top=False, weights=None, input_shape=(32, 32, 3))
    before_stem = keras.Model(scaled.input, scaled.get_layer("stem_conv").input)
    found = to_model_input(pixels, 32, backbone("efficientnet_v2_b0").scaling)
    np.testing.assert_allclose(found, before_stem(pixels), atol=1e-5)


def test_the_layer_that_scales_is_restored_as_it_was():
    layer = ToModelInput(32, "caffe", dtype="float32")
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 28, 28, 1)).astype("float32")
    np.testing.assert_array_equal(restored(pixels), to_model_input(pixels, 32, "caffe"))


def trained_looking(entry: Backbone, image_size: int, images: np.ndarray) -> keras.Model:
    """A classifier whose batch norms hold statistics of `images` and random scales, and no bias is 0."""
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    model = build_classifier(entry.name, CLASSES, image_size, dropout=0.2, batch_norm_momentum=0.0)
    for layer in model.layers:
        for weight in layer.trainable_weights:
            if weight.name == "gamma":
                weight.assign(rng.uniform(0.5, 1.5, weight.shape))
            elif weight.name in ("beta", "bias"):
                weight.assign(rng.normal(0.0, 0.1, weight.shape))
    model(images, training=True)  # at momentum 0 the statistics are the batch's
    return model


# 64 px where 32 would leave one position
@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("mobilenet_v2", 64),
        ("resnet18", 32),
        ("resnet18", 72),
        ("resnet50", 64),
        ("vgg16", 32),
        ("efficientnet_v2_b0", 64),
        ("tiny_vgg", 32),
        ("mini_cnn", 32),
    ],
)
def test_the_frozen_network_equals_keras_and_tf_keras_vis(name, image_size):
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.layercam import Layercam
    from tf_keras_vis.utils.scores import CategoricalScore

    entry = backbone(name)
    pixels = np.random.default_rng(1).uniform(0, 255, (8, image_size, image_size, 3))
    images = np.asarray(to_model_input(pixels, image_size, entry.scaling))
    model = trained_looking(entry, image_size, images)
    images = images[:2]
    core = FrozenCore(model, entry.cam_layer, entry.fine_layers)
    logits, cams = core.explain(tf.constant(images))
    np.testing.assert_allclose(tf.nn.softmax(logits), model(images, training=False), atol=1e-4)
    assert cams.shape[2:] == model.get_layer(entry.cam_layer).output.shape[1:3]

    engines = Gradcam(logits_model(model)), Layercam(logits_model(model))
    for label in range(CLASSES):
        _, fine = core.explain_fine(tf.constant(images), tf.constant([label, label], tf.int64))
        ours = [
            (0, entry.cam_layer, cams[:, label]),
            *((1, *both) for both in zip(entry.fine_layers, fine, strict=True)),
        ]
        for engine, layer, maps in ours:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tf-keras-vis names inputs in an old way, on every call
                # as it is: by default it looks for a convolution before a layer that is none
                options = {"penultimate_layer": layer, "seek_penultimate_conv_layer": False}
                score = CategoricalScore(label)
                expected = engines[engine](score, images, expand_cam=False, normalize_cam=False, **options)
            maps, expected = np.maximum(maps, 0.0), np.asarray(expected)
            highest = max(np.abs(cams).max() if engine == 0 else maps.max(), 1e-6)
            peaks = np.maximum(expected.max(axis=(1, 2), keepdims=True), highest / 100)  # some are black
            # fifty batch norms of a net that was never trained multiply what is rounded; test_parity.py has a trained
            # one. Position by position, a gradient jumps where a ReLU's input is 0 or two of a pooling's are equal.
            differences = np.abs(maps - expected) / peaks
            assert (differences.max() if engine == 0 else differences.mean()) < 1e-3
    assert (cams.numpy() > 0).any()
    assert (cams.numpy() < 0).any()
