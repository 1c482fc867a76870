"""A published version as explanations need it: its Keras model, its classes, and what it sees of pictures."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from training import manifest
from training.augment import to_model_input
from training.backbones import backbone
from training.datasets import Source, Split
from training.datasets.splitting import some_of_every
from training.explanation.errors import ExplanationError, nearest
from training.explanation.network import BATCH, Network
from training.preprocessing import View
from training.versions import MODEL_FILE, version_of, versions

BACKGROUND = 100  # test images that stand for what else there is
# What stands for "nothing there", 0..255: the ground of Fashion-MNIST's images; the middle grey of colour images
_NOTHING = {"fashion_mnist": 0.0, "colour": 127.5}


@dataclass(frozen=True)
class Version:
    """What a version directory holds, opened by `open_version`."""

    directory: Path
    described: dict[str, Any]  # the manifest
    view: View
    layers: tuple[str, ...]  # the CAM layer, then finer ones
    classes: tuple[str, ...]
    source: Source  # of the test images

    @functools.cached_property
    def model(self) -> keras.Model:
        return keras.models.load_model(self.directory / MODEL_FILE, compile=False)

    @property
    def title(self) -> str:
        return f"{self.described['name']}, version {self.directory.name}"

    @property
    def nothing(self) -> float:
        """What stands for "nothing there" in a view, 0..255."""
        return _NOTHING[self.view.preprocessing]

    def network(self, layer: str | None = None, batch: int = BATCH, *, background: bool = False) -> Network:
        """The model, opened at a layer; nothing is what its view has where there is no object.

        Args:
            layer: the one to look at.
            batch: images that are computed at once.
            background: whether it gets one: test images, the classes in proportion.

        Raises:
            DataError: a background is wanted and the test images are not here.
            ExplanationError: the model has no such layer, or its output has no positions.
        """
        empty = self.to_model(np.full((1, *self.view.shape), self.nothing, np.float32))
        others = self._background() if background else None
        return Network(self.model, layer, baseline=empty[0, 0, 0], batch=batch, background=others)

    def _background(self) -> np.ndarray:
        test = self.test_images()
        return self.to_model(test.images[some_of_every(test.labels, BACKGROUND, seed=0)])

    def layers_called(self, choices: Sequence[str] | None) -> tuple[str, ...]:
        """What a command line's choice stands for: None is the CAM layer, "all" that and the finer ones."""
        if not choices:
            return self.layers[:1]
        return self.layers if "all" in choices else tuple(choices)

    def to_model(self, views: np.ndarray) -> np.ndarray:
        """Views 0..255, (N, V, V, C), as the model takes them: float32 (N, S, S, 3)."""
        return np.asarray(to_model_input(views, self.model.input_shape[1], self.view.scaling))

    def class_id(self, choice: str) -> int:
        """The number of a class given by its name or number.

        Raises:
            ExplanationError: there is none; the message lists them, and the nearest.
        """
        by_name = {name.casefold(): number for number, name in enumerate(self.classes)}
        if choice.casefold() in by_name:
            return by_name[choice.casefold()]
        if choice.isdecimal() and int(choice) < len(self.classes):
            return int(choice)
        listed = ", ".join(f"{number} {name}" for number, name in enumerate(self.classes))
        raise ExplanationError(f"no class {choice!r}{nearest(choice, self.classes)}; the classes are {listed}")

    def test_images(self) -> Split:
        """The test split of its data.

        Raises:
            DataError: it is not here, or its images have another shape.
        """
        return manifest.load_test_of(self.directory, self.source)


def open_version(models: Path, name: str, version: int | None) -> Version:
    """Opens a version of a model.

    Args:
        models: the folder of all models.
        name: of the model.
        version: its number; None: the newest.

    Raises:
        ExplanationError: the version has no Keras model to be explained.
        FileNotFoundError: no such model or version; the message lists what there is.
    """
    return open_directory(version_of(models, name, version))


def open_directory(directory: Path, source: Source | None = None) -> Version:
    """Opens a version directory.

    Args:
        directory: of the version.
        source: its data; None: what the manifest says.

    Raises:
        ExplanationError: it has no Keras model.
    """
    base_path = directory.parent
    if not (directory / MODEL_FILE).is_file():
        with_model = [str(number) for number in versions(base_path) if (base_path / str(number) / MODEL_FILE).is_file()]
        raise ExplanationError(
            f"{directory} has no {MODEL_FILE}: expected a version as training.export writes it, with its Keras model; "
            f"versions of {base_path.name} that have one: {', '.join(with_model) or 'none'}"
        )
    described = manifest.read(directory)
    chosen = backbone(described["backbone"])
    return Version(
        directory=directory,
        described=described,
        view=View(described["preprocessing"].partition(":")[0], described["view"]["size"], chosen.scaling),
        layers=(described["cam_layers"][0], *chosen.fine_layers),
        classes=tuple(described["classes"]),
        source=source or manifest.trained_on(directory),
    )
