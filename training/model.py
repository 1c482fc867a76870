"""The classifier: a flat functional model of a backbone and a small head, and its initial weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from training import manifest
from training.backbones import Backbone, backbone
from training.datasets import place, split_settings
from training.settings import MODELS, Settings
from training.versions import MODEL_FILE

LOGITS_LAYER = "logits"
_HEAD = {"average": "global_average_pooling", "flatten": "flatten"}  # the layer that begins it


class WeightsError(ValueError):
    """Initial weights that cannot be had or do not fit."""


def build_classifier(
    name: str, num_classes: int, image_size: int, dropout: float, batch_norm_momentum: float
) -> keras.Model:
    """A backbone without top, global average pooling (or what its entry says), dropout, logits, softmax.

    Flat, not nested (`input_tensor=`), so that every layer is reached by `get_layer`, by tf-keras-vis too.

    Args:
        name: of the backbone.
        num_classes: C.
        image_size: S, in pixels.
        dropout: rate, before the logits.
        batch_norm_momentum: of every batch norm in the backbone.

    Returns:
        A model from float32 (N, S, S, 3) in the backbone's scaling to float32 probabilities (N, C), with random
        weights. The layer "logits" gives what precedes the softmax, float32 under mixed precision too.

    Raises:
        BackboneError: there is no such backbone, or the image is too small for it.
    """
    entry = backbone(name)
    inputs = keras.Input((image_size, image_size, 3), name="image")
    features = entry.build(inputs).output
    if entry.head == "average":
        features = keras.layers.GlobalAveragePooling2D(name=_HEAD[entry.head])(features)
    else:
        features = keras.layers.Flatten(name=_HEAD[entry.head])(features)
    features = keras.layers.Dropout(dropout, name="dropout", seed=0)(features)
    logits = keras.layers.Dense(num_classes, dtype="float32", name=LOGITS_LAYER)(features)
    probabilities = keras.layers.Activation("softmax", dtype="float32", name="probabilities")(logits)
    model = keras.Model(inputs, probabilities, name=f"{name}_classifier")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = batch_norm_momentum
    return model


def set_trainable(model: keras.Model, *, head_only: bool, frozen_layers: int) -> None:
    """Says which layers of a classifier learn, in place. A frozen batch norm works as in inference.

    Args:
        model: what build_classifier returns.
        head_only: the logits alone.
        frozen_layers: else, so many layers of the backbone are frozen, from the input on, which counts as the first of
            them, as in Keras; -1, or more than there are: all of them.
    """
    head_starts = next(number for number, layer in enumerate(model.layers) if layer.name in _HEAD.values())
    frozen = head_starts if frozen_layers < 0 else min(frozen_layers, head_starts)
    for number, layer in enumerate(model.layers):
        layer.trainable = layer.name == LOGITS_LAYER if head_only else number >= frozen


def load_initial_weights(model: keras.Model, settings: Settings, classes: Sequence[str]) -> str:
    """Loads the weights that training starts from into `model`, in place: a published version's or the backbone's.

    Args:
        model: what build_classifier returns.
        settings: what says where from.
        classes: what the model is to tell apart. A version with the same ones gives its logits too; else the head
            stays new.

    Returns:
        Where they came from, in words, for the manifest.

    Raises:
        WeightsError: the download failed, or the file or the version is missing, does not fit, or has been trained on
            images that are now held out.
    """
    if settings.init_from is None:
        return load_backbone_weights(model, settings)
    choice = settings.init_from
    source, described, origin = load_version(choice, settings, "--init-from")
    if described["backbone"] != settings.backbone:
        raise WeightsError(
            f"--init-from {choice}: it is a {described['backbone']}; "
            f"expected a version of the backbone {settings.backbone}"
        )
    head_fits = list(classes) == described["classes"] and _shapes(source, LOGITS_LAYER) == _shapes(model, LOGITS_LAYER)
    try:
        _copy_weights(source, model, skipped=() if head_fits else (LOGITS_LAYER,))
    except ValueError as error:
        raise WeightsError(f"--init-from {choice}: its weights do not fit: {error}") from error
    part = "" if head_fits else ", all but the head, which is new"
    return f"{origin}{part}, which began with: {described['initial_weights']}"


def load_version(choice: str, settings: Settings, option: str) -> tuple[keras.Model, dict[str, Any], str]:
    """Loads a published version that training learns from.

    Args:
        choice: what the user gave: the number of a version of the settings' model, or a path.
        settings: of the run that is to learn from it.
        option: where the user gave it, for the message.

    Returns:
        The model, not compiled; the manifest; and what it is, in words, for the manifest of what becomes of it.

    Raises:
        WeightsError: it is missing or broken, or has been trained on images that are now held out.
    """
    version_dir = version_directory(choice, settings, option)
    path = version_dir / MODEL_FILE
    try:
        described = manifest.read(version_dir)
        model = keras.models.load_model(path, compile=False)
    except (ValueError, OSError) as error:
        raise WeightsError(f"{option} {choice}: {path} cannot be read: {error}") from error
    _check_same_split(settings, described["training"], f"{option} {choice}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    number = described["version"]  # an export has none yet
    origin = (
        f"{f'version {number}' if number else 'an unpublished version'} of {described['name']}, created "
        f"{described['created']}, model.keras sha256 {digest}"
    )
    return model, described, origin


def _check_same_split(settings: Settings, before: Mapping[str, Any], option: str) -> None:
    """Raises WeightsError where a version has been trained on images of the same data that are now held out."""
    if "dataset" not in before or place(before["dataset"]) != place(settings.dataset):
        return
    for name in split_settings(settings.dataset):
        if before.get(name, getattr(settings, name)) != getattr(settings, name):
            raise WeightsError(
                f"{option}: it was trained with {name}={before[name]}, and so on images that {name}="
                f"{getattr(settings, name)} holds out; use the same"
            )


def initial_version(settings: Settings) -> Path:
    """The version directory that settings.init_from names, by number or path.

    Raises:
        WeightsError: there is none.
    """
    return version_directory(str(settings.init_from), settings, "--init-from")


def version_directory(choice: str, settings: Settings, option: str) -> Path:
    """The version directory that `choice` names: the number of a version of the settings' model, or a path.

    Args:
        choice: what the user gave.
        settings: whose model a number is of.
        option: where the user gave it, for the message.

    Raises:
        WeightsError: there is none.
    """
    base_path = MODELS / settings.model_name
    version_dir = base_path / choice if choice.isdecimal() else Path(choice)
    if not (version_dir / MODEL_FILE).is_file():
        raise WeightsError(
            f"{option} {choice}: no {version_dir / MODEL_FILE}; expected the number of a version in "
            f"{base_path}, or a version directory"
        )
    return version_dir


def load_backbone_weights(model: keras.Model, settings: Settings) -> str:
    """Loads the initial weights of the backbone into `model`, in place.

    Returns:
        Where they came from, in words, for the manifest.

    Raises:
        WeightsError: the download failed, or the file is missing or does not fit.
    """
    choice, entry = settings.backbone_weights, backbone(settings.backbone)
    if choice == "none":
        return "none: random initial weights"
    inputs = keras.Input(model.input_shape[1:])
    if choice == "imagenet":
        source = _with_imagenet_weights(entry, inputs)
        origin = f"imagenet: Keras Applications' {entry.title.replace(' (', ' weights (', 1)}"
    else:
        path = Path(choice)
        if not path.is_file():
            raise WeightsError(
                f"--backbone-weights {choice}: no such file; expected imagenet, none, or a Keras weights file"
            )
        source = entry.build(inputs)
        try:
            source.load_weights(path)
        except (ValueError, OSError, KeyError) as error:
            raise WeightsError(f"{path} does not hold weights of {entry.title}: {error}") from error
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        origin = f"file {path.name}, sha256 {digest}" + (
            f": {settings.backbone_weights_source}" * bool(settings.backbone_weights_source)
        )
    _copy_weights(source, model)
    return origin


def _with_imagenet_weights(entry: Backbone, inputs: keras.KerasTensor) -> keras.Model:
    if not entry.imagenet:
        raise WeightsError(
            f"--backbone-weights imagenet: Keras has none for {entry.title}; expected none, or a Keras weights file"
        )
    try:
        return entry.build(inputs, weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception when its download fails
        raise WeightsError(
            f"Keras' ImageNet weights could not be downloaded ({error}). Three ways on: run this once where "
            "storage.googleapis.com can be reached (Keras keeps them in ~/.keras/models); give a file with "
            "--backbone-weights PATH; or start from random weights with --backbone-weights none."
        ) from error


def _copy_weights(source: keras.Model, target: keras.Model, skipped: Sequence[str] = ()) -> None:
    """Sets the weights of all layers of `source`, by name, in `target`."""
    for layer in source.layers:
        if layer.weights and layer.name not in skipped:
            target.get_layer(layer.name).set_weights(layer.get_weights())


def _shapes(model: keras.Model, layer: str) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in model.get_layer(layer).weights]


def logits_model(model: keras.Model) -> keras.Model:
    """The same layers and weights, ending in the logits: float32 (N, num_classes)."""
    return keras.Model(model.input, model.get_layer(LOGITS_LAYER).output)
