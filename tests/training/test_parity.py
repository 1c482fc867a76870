"""The shipped version's served graph against its Keras model and against tf-keras-vis."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from shipped import SHIPPED

from training import manifest
from training.augment import to_model_input
from training.backbones import backbone
from training.datasets import load_test, png
from training.model import logits_model

IMAGES = 50
KINK = 2e-5  # of a ReLU6's input: twenty times the typical rounding difference between batch sizes


@pytest.fixture(scope="module")
def keras_model() -> keras.Model:
    return keras.models.load_model(SHIPPED / "assets.extra/model.keras")


@pytest.fixture(scope="module")
def images(keras_model: keras.Model) -> np.ndarray:
    """The first test images whose Grad-CAM is defined up to rounding: (50, 28, 28, 1).

    The gradient jumps where a ReLU6's input is 0 or 6. About one image in fifty has, after the CAM layer, a unit so
    near to that point that the last bit decides its side; there even Keras differs between two batch sizes.
    """
    candidates = load_test().images[: 2 * IMAGES]
    relu_inputs = keras.Model(keras_model.input, keras_model.get_layer("out_relu").input)
    x = relu_inputs.predict(np.asarray(to_model_input(candidates, 96)), verbose=0)
    distance = np.minimum(np.abs(x), np.abs(x - 6)).min(axis=(1, 2, 3))
    smooth = candidates[distance > KINK]
    assert len(smooth) > 0.9 * len(candidates)
    return smooth[:IMAGES]


@pytest.fixture(scope="module")
def model_inputs(images: np.ndarray) -> np.ndarray:
    return np.asarray(to_model_input(images, 96))


@pytest.fixture(scope="module")
def signatures():
    return tf.saved_model.load(str(SHIPPED)).signatures


@pytest.fixture(scope="module")
def grad_cam(keras_model: keras.Model, model_inputs: np.ndarray) -> np.ndarray:
    return tf_keras_vis_maps(keras_model, model_inputs)


def tf_keras_vis_maps(keras_model: keras.Model, model_inputs: np.ndarray) -> np.ndarray:
    """tf-keras-vis' Grad-CAM of the predicted class at the CAM layer, before its min-max scaling: (N, 3, 3)."""
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.utils.scores import CategoricalScore

    model = logits_model(keras_model)
    classes = model.predict(model_inputs, verbose=0).argmax(axis=1).tolist()
    layer = backbone("mobilenet_v2").cam_layer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf-keras-vis names inputs in an old way, on every call
        cam = Gradcam(model)
        score = CategoricalScore(classes)
        return np.asarray(cam(score, model_inputs, penultimate_layer=layer, expand_cam=False, normalize_cam=False))


def test_probabilities_equal_the_keras_models(signatures, keras_model, model_inputs, images):
    served = signatures["serving_default"](image_bytes=tf.constant([png(i) for i in images]))
    expected = keras_model.predict(model_inputs, verbose=0)
    np.testing.assert_allclose(served["probabilities"], expected, atol=1e-4)
    np.testing.assert_array_equal(served["class_id"], expected.argmax(axis=1))


@pytest.mark.parametrize("batch", [1, IMAGES])
def test_cams_equal_tf_keras_vis(signatures, images, grad_cam, batch):
    encoded = [png(i) for i in images]
    outputs = [signatures["explain"](image_bytes=tf.constant(encoded[i : i + batch])) for i in range(0, IMAGES, batch)]
    cams = np.concatenate([o["cams"] for o in outputs])
    predicted = np.concatenate([o["class_id"] for o in outputs])
    maps = np.maximum(cams[np.arange(IMAGES), predicted], 0.0)
    np.testing.assert_allclose(maps / peak(maps), grad_cam / peak(grad_cam), atol=1e-4)


def peak(maps: np.ndarray) -> np.ndarray:
    peaks = maps.max(axis=(1, 2), keepdims=True)
    assert (peaks > 0).all()
    return peaks


def test_fine_maps_equal_tf_keras_vis(signatures, images, model_inputs, keras_model):
    """Twenty layers lie between the finest and the logits, so that some images have a ReLU6 near its kink."""
    from tf_keras_vis.layercam import Layercam
    from tf_keras_vis.utils.scores import CategoricalScore

    encoded = tf.constant([png(i) for i in images])
    classes = [(index * 3) % 10 for index in range(IMAGES)]
    outputs = signatures["explain_fine"](image_bytes=encoded, class_id=tf.constant(classes, tf.int64))
    cam, score = Layercam(logits_model(keras_model)), CategoricalScore(classes)
    for name, layer in manifest.read(SHIPPED)["fine_layers"].items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tf-keras-vis names inputs in an old way, on every call
            # as it is: by default it looks for a convolution before a layer that is none
            options = {"penultimate_layer": layer, "seek_penultimate_conv_layer": False}
            expected = np.asarray(cam(score, model_inputs, expand_cam=False, normalize_cam=False, **options))
        maps = outputs[name].numpy()
        peaks = np.maximum(expected.max(axis=(1, 2), keepdims=True), 1e-3)
        difference = (np.abs(maps - expected) / peaks).max(axis=(1, 2))
        assert np.median(difference) < 1e-4
        assert difference.max() < 0.1


def test_cams_of_any_test_image(signatures, keras_model):
    """Unfiltered: a kink moves a map by one unit's share, never to another shape, and few have one."""
    candidates = load_test().images[:200]
    expected = tf_keras_vis_maps(keras_model, np.asarray(to_model_input(candidates, 96)))
    outputs = signatures["explain"](image_bytes=tf.constant([png(i) for i in candidates]))
    maps = np.maximum(outputs["cams"].numpy()[np.arange(len(candidates)), outputs["class_id"]], 0.0)
    difference = np.abs(maps / peak(maps) - expected / peak(expected)).max(axis=(1, 2))
    assert (difference <= 1e-4).mean() >= 0.95
    assert difference.max() <= 0.05


def test_all_signatures_agree(signatures, images):
    encoded = tf.constant([png(i) for i in images])
    expected = signatures["serving_default"](image_bytes=encoded)["probabilities"].numpy()
    rgb = np.repeat(images, 3, axis=-1).astype("float32")
    examples = [
        tf.train.Example(
            features=tf.train.Features(
                feature={"image_bytes": tf.train.Feature(bytes_list=tf.train.BytesList(value=[e]))}
            )
        ).SerializeToString()
        for e in encoded.numpy()
    ]
    classified = signatures["classify"](inputs=tf.constant(examples))
    for outputs in (
        signatures["explain"](image_bytes=encoded),
        signatures["images"](images=tf.constant(rgb)),
        signatures["pixels"](pixels=tf.constant(images.reshape(IMAGES, -1), tf.float32)),
    ):
        np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    np.testing.assert_allclose(classified["scores"], -np.sort(-expected, axis=1), atol=1e-5)
    names = np.array((SHIPPED / "assets/classes.txt").read_text().splitlines())
    assert (np.char.decode(classified["classes"].numpy().astype("S"))[:, 0] == names[expected.argmax(axis=1)]).all()
