"""The classifier: a flat functional MobileNetV2 with a small head, and its initial weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import keras

from training import manifest
from training.settings import MODELS, Settings

CAM_LAYER = "block_16_project"
LOGITS_LAYER = "logits"


class WeightsError(ValueError):
    """Initial weights that cannot be had or do not fit."""


def build_classifier(num_classes: int, image_size: int, dropout: float, batch_norm_momentum: float) -> keras.Model:
    """MobileNetV2 (Sandler et al., 2018) without top, global average pooling, dropout, logits, softmax.

    Flat, not nested (`input_tensor=`), so that every layer is reached by `get_layer`, by tf-keras-vis too.

    Returns:
        A model from float32 (N, image_size, image_size, 3) in -1..1 to float32 probabilities (N, num_classes),
        with random weights. The layer "logits" gives what precedes the softmax.
    """
    inputs = keras.Input((image_size, image_size, 3), name="image")
    backbone = keras.applications.MobileNetV2(input_tensor=inputs, include_top=False, weights=None)
    features = keras.layers.GlobalAveragePooling2D(name="global_average_pooling")(backbone.output)
    features = keras.layers.Dropout(dropout, name="dropout", seed=0)(features)
    logits = keras.layers.Dense(num_classes, name=LOGITS_LAYER)(features)
    probabilities = keras.layers.Activation("softmax", dtype="float32", name="probabilities")(logits)
    model = keras.Model(inputs, probabilities, name="mobilenet_v2_classifier")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = batch_norm_momentum
    return model


def load_initial_weights(model: keras.Model, settings: Settings) -> str:
    """Loads the weights that training starts from into `model`, in place: a published version's or the backbone's.

    Returns:
        Where they came from, in words, for the manifest.

    Raises:
        WeightsError: the download failed, or the file or the version is missing or does not fit.
    """
    if settings.init_from is None:
        return load_backbone_weights(model, settings)
    choice, version_dir = settings.init_from, initial_version(settings)
    path = version_dir / "assets.extra" / "model.keras"
    try:
        described = manifest.read(version_dir)
        source = keras.models.load_model(path, compile=False)
        model.set_weights(source.get_weights())
    except (ValueError, OSError) as error:
        raise WeightsError(f"--init-from {choice}: {path} cannot be gone on from: {error}") from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return (
        f"version {described['version']} of {described['name']}, created {described['created']}, model.keras sha256 "
        f"{digest}, which began with: {described['initial_weights']}"
    )


def initial_version(settings: Settings) -> Path:
    """The version directory that settings.init_from names, by number or path.

    Raises:
        WeightsError: there is none.
    """
    choice = str(settings.init_from)
    version_dir = MODELS / settings.dataset / choice if choice.isdecimal() else Path(choice)
    if not (version_dir / "assets.extra" / "model.keras").is_file():
        raise WeightsError(
            f"--init-from {choice}: no {version_dir}/assets.extra/model.keras; expected the number of a version in "
            f"{MODELS / settings.dataset}, or a version directory"
        )
    return version_dir


def load_backbone_weights(model: keras.Model, settings: Settings) -> str:
    """Loads the initial weights of the backbone into `model`, in place.

    Returns:
        Where they came from, in words, for the manifest.

    Raises:
        WeightsError: the download failed, or the file is missing or does not fit.
    """
    choice = settings.backbone_weights
    if choice == "none":
        return "none: random initial weights"
    shape = tuple(model.input_shape[1:])
    if choice == "imagenet":
        try:
            source = keras.applications.MobileNetV2(input_shape=shape, include_top=False, weights="imagenet")
        except Exception as error:  # Keras raises a bare Exception when its download fails
            raise WeightsError(
                f"Keras' ImageNet weights could not be downloaded ({error}). Three ways on: run this once where "
                "storage.googleapis.com can be reached (Keras keeps them in ~/.keras/models); give a file with "
                "--backbone-weights PATH; or start from random weights with --backbone-weights none."
            ) from error
        origin = "imagenet: Keras Applications' MobileNetV2 weights (alpha 1.0, no top)"
    else:
        path = Path(choice)
        if not path.is_file():
            raise WeightsError(
                f"--backbone-weights {choice}: no such file; expected imagenet, none, or a Keras weights file"
            )
        source = keras.applications.MobileNetV2(input_shape=shape, include_top=False, weights=None)
        try:
            source.load_weights(path)
        except (ValueError, OSError, KeyError) as error:
            raise WeightsError(f"{path} does not hold weights of MobileNetV2 (alpha 1.0, no top): {error}") from error
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        origin = f"file {path.name}, sha256 {digest}" + (
            f": {settings.backbone_weights_source}" * bool(settings.backbone_weights_source)
        )
    for layer in source.layers:
        if layer.weights:
            model.get_layer(layer.name).set_weights(layer.get_weights())
    return origin


def logits_model(model: keras.Model) -> keras.Model:
    """The same layers and weights, ending in the logits: float32 (N, num_classes)."""
    return keras.Model(model.input, model.get_layer(LOGITS_LAYER).output)
