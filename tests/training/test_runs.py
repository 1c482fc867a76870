"""The options of a run: what they set, where the run lies, and what they refuse."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from training.datasets import DataError
from training.runs import add_run_arguments, run_from_arguments, start_over
from training.settings import SettingsError, Stage


def parsed(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    return parser.parse_args(["--preset", "fast", *options])


def run(*options: str):
    return run_from_arguments(parsed(*options))


def test_options_and_assignments_are_settings():
    settings, run_dir = run(
        "--batch-size", "16", "--learning-rate", "1e-5", "--backbone", "vgg16", "--frozen-layers", "-1",
        "--set", "label_smoothing=0.05", "--set", 'class_names=["a", "b"]', "--set", "class_weights=balanced",
    )  # fmt: skip
    assert (settings.batch_size, settings.learning_rate, settings.frozen_layers) == (16, 1e-5, -1)
    assert (settings.label_smoothing, settings.class_names) == (0.05, ("a", "b"))
    assert settings.class_weights == "balanced"  # no TOML, so a string
    assert run_dir == Path("runs/vgg16-fast")


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        (["--image-size", "64"], (Stage(64, 4),)),  # as many epochs as the preset's stages have
        (["--epochs", "2"], (Stage(96, 2),)),
        (["--image-size", "64", "--epochs", "3"], (Stage(64, 3),)),
    ],
)
def test_image_size_and_epochs_make_one_stage(options, stages):
    settings, _ = run(*options)
    assert settings.stages == stages
    assert settings.image_size == stages[0].image_size


def test_a_run_lies_under_its_model_and_preset(tmp_path):
    assert run()[1] == Path("runs/fast")
    assert run("--dataset", str(tmp_path / "photos"))[1] == Path("runs/photos-fast")
    assert run("--name", "clothing", "--backbone", "mini_cnn")[1] == Path("runs/clothing-mini_cnn-fast")
    assert run("--run-dir", str(tmp_path / "x"))[1] == tmp_path / "x"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "label_smoothing"], "--set label_smoothing: expected KEY=VALUE"),
        (["--set", "lable_smoothing=0.1"], "did you mean 'label_smoothing'"),
        (["--set", "label_smoothing=high"], "label_smoothing"),
        (["--backbone", "vgg"], "the backbones are mobilenet_v2"),
        (["--image-size", "16"], "at least 32 px, got 16"),
        (["--epochs", "2", "--set", "stages=[{image_size = 96, epochs = 1}]"], "leave --image-size and --epochs out"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(SettingsError, match=message):
        run(*options)


def test_none_leaves_a_setting_out():
    settings, _ = run("--set", "train_limit=none", "--set", "publish_anyway=none", "--set", "backbone_weights=none")
    assert (settings.train_limit, settings.publish_anyway, settings.backbone_weights) == (None, None, "none")


def test_fresh_waits_until_the_dataset_is_known_to_be_there(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "settings.json").write_text("{}")
    for dataset, left in ((str(tmp_path / "fotos"), True), ("fashion_mnist", False)):
        arguments = parsed("--fresh", "--run-dir", str(run_dir), "--dataset", dataset)
        settings, _ = run_from_arguments(arguments)
        if left:
            with pytest.raises(DataError, match="neither known nor a path that exists"):
                start_over(arguments, settings, run_dir)
        else:
            start_over(arguments, settings, run_dir)
        assert run_dir.exists() == left
