"""The classifier's shape and where its initial weights may come from."""

from __future__ import annotations

import hashlib
import os
import shutil

import keras
import numpy as np
import pytest
from shipped import SHIPPED, VERSION

from training import manifest
from training.model import (
    LOGITS_LAYER,
    WeightsError,
    build_classifier,
    load_backbone_weights,
    load_initial_weights,
    logits_model,
    set_trainable,
)
from training.settings import Settings, Stage

SEVEN = tuple("abcdefg")


def settings(weights: str, **others) -> Settings:
    return Settings(backbone_weights=weights, image_size=32, stages=(Stage(32, 1),), **others)


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    return build_classifier("mobilenet_v2", 7, 32, dropout=0.2, batch_norm_momentum=0.9)


def test_it_is_flat(classifier):
    assert not [layer.name for layer in classifier.layers if isinstance(layer, keras.Model)]
    assert classifier.get_layer("block_16_project").output.shape[-1] == 320
    assert logits_model(classifier).output_shape == (None, 7)


def test_batch_norms_follow_the_momentum_given(classifier):
    momenta = [layer.momentum for layer in classifier.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(momenta) > 50
    assert set(momenta) == {0.9}


def test_probabilities_are_the_logits_softmax(classifier):
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    logits = logits_model(classifier)(images)
    np.testing.assert_allclose(classifier(images), keras.ops.softmax(logits), atol=1e-6)
    np.testing.assert_allclose(keras.ops.sum(classifier(images), axis=1), 1.0, atol=1e-5)


def test_logits_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_classifier("mini_cnn", 7, 32, dropout=0.2, batch_norm_momentum=0.9)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("conv_1").compute_dtype == "bfloat16"
    assert logits_model(model).output.dtype == model.output.dtype == "float32"


def test_weights_of_a_file_arrive(classifier, tmp_path):
    path = tmp_path / "backbone.weights.h5"
    backbone = keras.applications.MobileNetV2(input_shape=(32, 32, 3), include_top=False, weights=None)
    backbone.save_weights(path)
    origin = load_backbone_weights(classifier, settings(str(path), backbone_weights_source="made by a test"))
    assert hashlib.sha256(path.read_bytes()).hexdigest() in origin
    assert origin.startswith("file backbone.weights.h5")
    assert origin.endswith("made by a test")
    for name in ("Conv1", "block_7_depthwise", "Conv_1_bn"):
        for mine, theirs in zip(
            classifier.get_layer(name).get_weights(), backbone.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(mine, theirs)


def test_none_leaves_the_weights_as_they_are(classifier):
    before = classifier.get_weights()
    assert load_backbone_weights(classifier, settings("none")) == "none: random initial weights"
    for one, other in zip(classifier.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_missing_file_is_named(classifier, tmp_path):
    with pytest.raises(WeightsError, match=r"none\.h5: no such file; expected imagenet, none, or a Keras weights file"):
        load_backbone_weights(classifier, settings(str(tmp_path / "none.h5")))


@pytest.mark.parametrize("content", [b"", b"not HDF5"])
def test_a_file_of_something_else_is_named(classifier, tmp_path, content):
    path = tmp_path / "other.weights.h5"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"other\.weights\.h5 does not hold weights of MobileNetV2"):
        load_backbone_weights(classifier, settings(str(path)))


@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
def test_weights_of_another_net_are_refused(classifier, tmp_path):
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(path)
    with pytest.raises(WeightsError, match=r"other\.weights\.h5 does not hold weights of MobileNetV2"):
        load_backbone_weights(classifier, settings(str(path)))


def test_a_net_that_keras_has_no_weights_for_says_so():
    model = build_classifier("resnet18", 7, 32, dropout=0.2, batch_norm_momentum=0.9)
    with pytest.raises(WeightsError, match=r"Keras has none for ResNet18 \(no top\); expected none, or a"):
        load_backbone_weights(model, settings("imagenet", backbone="resnet18"))


@pytest.mark.filterwarnings("ignore:`input_shape` is undefined or non-square:UserWarning")  # 32 px: 224 px weights
def test_a_failed_download_names_three_ways_on(classifier, monkeypatch):
    def fail(*args, **kwargs):
        raise Exception("URL fetch failure on https://storage.googleapis.com/")  # as Keras does

    monkeypatch.setattr("keras.src.applications.mobilenet_v2.file_utils.get_file", fail)
    with pytest.raises(WeightsError) as caught:
        load_backbone_weights(classifier, settings("imagenet"))
    message = str(caught.value)
    assert "URL fetch failure" in message
    for way in ("storage.googleapis.com can be reached", "--backbone-weights PATH", "--backbone-weights none"):
        assert way in message


def test_a_published_version_is_gone_on_from_with_all_its_weights():
    described = manifest.read(SHIPPED)
    published = keras.models.load_model(SHIPPED / "assets.extra/model.keras")
    model = build_classifier("mobilenet_v2", 10, 32, dropout=0.2, batch_norm_momentum=0.9)
    origin = load_initial_weights(model, settings("none", init_from=str(VERSION)), described["classes"])
    assert origin.startswith(f"version {VERSION} of fashion_mnist, created {described['created']}, model.keras sha256 ")
    assert described["files"]["assets.extra/model.keras"] in origin
    assert origin.endswith(described["initial_weights"])
    for mine, theirs in zip(model.get_weights(), published.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_without_a_version_to_go_on_from_the_backbone_has_its_initial_weights(classifier):
    assert load_initial_weights(classifier, settings("none"), SEVEN) == "none: random initial weights"


@pytest.mark.parametrize("choice", ["987", "no/such/directory"])
def test_a_missing_version_is_named(classifier, choice):
    with pytest.raises(
        WeightsError, match=rf"--init-from {choice}: no .*model\.keras; expected the number of a version"
    ):
        load_initial_weights(classifier, settings("none", init_from=choice), SEVEN)


@pytest.mark.parametrize("classes", [SEVEN, tuple("abcdefghij")])
def test_a_version_with_other_classes_gives_all_but_the_head(classes):
    published = keras.models.load_model(SHIPPED / "assets.extra/model.keras")
    model = build_classifier("mobilenet_v2", len(classes), 32, dropout=0.2, batch_norm_momentum=0.9)
    new_head = model.get_layer(LOGITS_LAYER).get_weights()
    origin = load_initial_weights(model, settings("none", init_from=str(VERSION)), classes)
    assert ", all but the head, which is new, which began with" in origin
    for layer in ("Conv1", "block_16_project", "Conv_1_bn"):
        for mine, theirs in zip(
            model.get_layer(layer).get_weights(), published.get_layer(layer).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(mine, theirs)
    for mine, before in zip(model.get_layer(LOGITS_LAYER).get_weights(), new_head, strict=True):
        np.testing.assert_array_equal(mine, before)


def test_a_version_that_has_seen_what_is_held_out_now_is_refused(tmp_path):
    model = build_classifier("mobilenet_v2", 7, 32, dropout=0.2, batch_norm_momentum=0.9)
    version = shutil.copytree(SHIPPED, tmp_path / "1")
    described = manifest.read(version)
    manifest.write(version, described | {"training": described["training"] | {"dataset": "photos"}})
    begun = {"init_from": str(version), "split_seed": 1}
    for same in ("photos", os.path.abspath("photos/")):
        with pytest.raises(WeightsError, match="with split_seed=0, and so on images that split_seed=1 holds out"):
            load_initial_weights(model, settings("none", dataset=same, **begun), SEVEN)
    for other in ("pets", "fashion_mnist"):  # another dataset, or one that is split already
        load_initial_weights(model, settings("none", dataset=other, **begun), SEVEN)


def test_a_version_of_another_backbone_is_refused():
    model = build_classifier("mini_cnn", 10, 32, dropout=0.2, batch_norm_momentum=0.9)
    with pytest.raises(WeightsError, match="it is a mobilenet_v2; expected a version of the backbone mini_cnn"):
        load_initial_weights(model, settings("none", init_from=str(VERSION), backbone="mini_cnn"), SEVEN)


@pytest.mark.parametrize(
    ("head_only", "frozen_layers", "learning"),
    [(True, 0, 1), (False, 0, None), (False, -1, 1), (False, 10_000, 1), (False, 20, None)],
)
def test_the_first_layers_can_be_frozen(classifier, head_only, frozen_layers, learning):
    set_trainable(classifier, head_only=head_only, frozen_layers=frozen_layers)
    trainable = [layer.name for layer in classifier.layers if layer.trainable and layer.weights]
    assert trainable[-1] == LOGITS_LAYER
    if learning is not None:
        assert len(trainable) == learning
    else:
        expected = [layer.name for layer in classifier.layers[frozen_layers:] if layer.weights]
        assert trainable == expected
    set_trainable(classifier, head_only=False, frozen_layers=0)


def test_a_broken_model_file_is_refused(classifier, tmp_path):
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra/manifest.json").write_text("{}")
    (tmp_path / "assets.extra/model.keras").write_bytes(b"no zip")
    with pytest.raises(WeightsError, match=r"--init-from .*model\.keras cannot be read"):
        load_initial_weights(classifier, settings("none", init_from=str(tmp_path)), SEVEN)
