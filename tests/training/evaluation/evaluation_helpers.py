"""A small version of three classes of colour photos, one of them with a name that no page may take for markup."""

from __future__ import annotations

from pathlib import Path

import keras

from training import manifest
from training.backbones import backbone
from training.datasets import Source
from training.export import write_saved_model
from training.model import build_classifier
from training.preprocessing import View

CLASSES = ("<img src=x onerror=alert(1)>", "blue|sky", "green")
COLOURS = ((200, 60, 40), (40, 90, 210), (60, 170, 70))
SIZE = 32
PHOTOS = {"train": 12, "validation": 5, "test": 10}  # of every class


def write_version(directory: Path, source: Source, seed: int) -> None:
    keras.utils.set_random_seed(seed)
    entry = backbone("mini_cnn")
    model = build_classifier("mini_cnn", len(CLASSES), SIZE, 0.0, 0.9)
    view = View("colour", SIZE, entry.scaling)
    directory.parent.mkdir(parents=True, exist_ok=True)
    write_saved_model(model, CLASSES, directory, entry.cam_layer, view)
    (directory / "assets.extra").mkdir()
    model.save(directory / "assets.extra" / "model.keras")
    content = {
        "name": "photos",
        "version": int(directory.name),
        "created": "2026-01-01T00:00:00+00:00",
        "git_commit": None,
        "classes": list(CLASSES),
        "input_size": SIZE,
        "preprocessing": f"colour: {SIZE}x{SIZE} RGB, resized without keeping the aspect",
        "view": {"size": SIZE, "channels": 3, "scaling": entry.scaling},
        "backbone": "mini_cnn",
        "cam_layers": [entry.cam_layer],
        "initial_weights": "none: random initial weights",
        "training": {"dataset": source.dataset, "image_size": SIZE, "history": []},
        "calibration": {"temperature": 0.8, "fitted_on": "15 validation images"},
        "libraries": {"keras": keras.__version__},
    }
    manifest.write(directory, content)
