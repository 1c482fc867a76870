"""Teachers: which versions may teach, what a run learns of them, and what stays written of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from shipped import SHIPPED, VERSION

from training import checkpoint, manifest
from training.datasets import load_training
from training.export import export
from training.model import WeightsError
from training.settings import Settings, SettingsError, Stage
from training.teachers import Teacher, Teaching, load_teachers
from training.train import train

CLASSES = manifest.read(SHIPPED)["classes"]
SETTINGS = Settings(
    backbone="mini_cnn",
    backbone_weights="none",
    train_limit=64,
    batch_size=32,
    image_size=32,
    stages=(Stage(32, 2),),
    teachers=(str(VERSION),),
)


def altered(directory: Path, **changes: object) -> str:
    """A copy of the shipped version whose manifest says something else."""
    shutil.copytree(SHIPPED, directory, dirs_exist_ok=True)
    manifest.write(directory, manifest.read(SHIPPED) | changes)
    return str(directory)


def with_teachers(*choices: str) -> Settings:
    return dataclasses.replace(SETTINGS, teachers=choices)


def test_they_answer_together_and_learn_nothing():
    def teacher(bias: float) -> Teacher:
        inputs = keras.Input((2, 2, 3))
        flat = keras.layers.Flatten()(inputs)
        dense = keras.layers.Dense(2, bias_initializer=keras.initializers.Constant([0, bias]))
        return Teacher(keras.Model(inputs, dense(flat)), "tf", "a teacher")

    teaching = Teaching([teacher(1.0), teacher(-1.0)], temperature=1.0)
    answers = np.asarray(teaching(np.full((3, 2, 2, 1), 127.5, "float32")))
    np.testing.assert_allclose(answers, 0.5, atol=1e-6)
    assert teaching.trainable_variables == []


def test_a_teacher_answers_as_it_is_served():
    """Resized and scaled for itself, whatever the learner's size is."""
    (teacher,) = load_teachers(SETTINGS, CLASSES)
    validation = load_training(SETTINGS.source).validation.first(200)
    answers = np.asarray(Teaching([teacher], temperature=1.0)(validation.images.astype("float32")))
    accuracy = np.mean(answers.argmax(axis=1) == validation.labels)
    assert accuracy > manifest.read(SHIPPED)["metrics"]["validation"]["accuracy"] - 0.03


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": CLASSES[::-1]}, "it knows the classes Ankle boot, Bag, .*; expected T-shirt/top, Trouser"),
        (
            {"training": {"dataset": "photos", "split_seed": 1}},
            "it was trained with split_seed=1, and so on images that split_seed=0 holds out",
        ),
    ],
)
def test_who_knows_other_classes_or_what_is_held_out_does_not_teach(tmp_path, changes, message):
    choice = altered(tmp_path / "1", **changes)
    with pytest.raises(WeightsError, match=rf"teachers {choice}: {message}"):
        load_teachers(dataclasses.replace(with_teachers(choice), dataset="photos"), CLASSES)


def test_a_missing_teacher_is_named_before_anything_is_trained(tmp_path):
    with pytest.raises(WeightsError, match=r"teachers 987: no .*model\.keras; expected the number of a version"):
        train(with_teachers("987"), tmp_path)
    assert not (tmp_path / "last.npz").exists()


def test_a_run_says_who_taught_it_and_goes_on_with_the_same_alone(tmp_path, monkeypatch):
    choice = altered(tmp_path / "teacher")
    run_dir = tmp_path / "run"

    def killed(path: Path, progress: checkpoint.Progress, *state) -> None:
        save(path, progress, *state)
        if path.name == "last.npz" and progress.epoch == 2:
            raise KeyboardInterrupt

    save = checkpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(with_teachers(choice), run_dir)
    altered(tmp_path / "teacher", created="another day")
    with pytest.raises(SettingsError, match=r"began with other teachers: version .*; bring them back, or start over"):
        train(with_teachers(choice), run_dir)

    altered(tmp_path / "teacher")
    train(with_teachers(choice), run_dir)
    export(run_dir, tmp_path / "export")
    shutil.rmtree(tmp_path / "teacher")
    train(with_teachers(choice), run_dir)  # is finished, and needs nobody
    described = manifest.read(SHIPPED)
    digest = described["files"]["assets.extra/model.keras"]
    (taught,) = json.loads((tmp_path / "export" / manifest.FILE).read_text())["training"]["teachers"]
    assert taught == (
        f"version {VERSION} of fashion_mnist, created {described['created']}, model.keras sha256 {digest}"
    )
