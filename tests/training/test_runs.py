"""The options of a run: what they set, where the run lies, and what they refuse."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest

from training.datasets import DataError
from training.runs import add_run_arguments, begun, put_back_unless_begun, run_from_arguments, start_over
from training.settings import SettingsError, Stage


def parsed(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    return parser.parse_args(["--preset", "fast", *options])


def run(*options: str):
    return run_from_arguments(parsed(*options))


def old_run(run_dir: Path) -> Path:
    run_dir.mkdir()
    for name in ("settings.json", "last.npz"):
        (run_dir / name).write_text("old")
    return run_dir


def holds_the_old_run(run_dir: Path) -> bool:
    return {path.name: path.read_text() for path in run_dir.iterdir()} == {"settings.json": "old", "last.npz": "old"}


def started(run_dir: Path, *options: str) -> None:
    arguments = parsed("--run-dir", str(run_dir), *options)
    start_over(arguments, run_from_arguments(arguments)[0], run_dir)


def fresh(run_dir: Path, *options: str) -> None:
    started(run_dir, "--fresh", *options)


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
    run_dir = old_run(tmp_path / "run")
    with pytest.raises(DataError, match="neither known nor a path that exists"):
        fresh(run_dir, "--dataset", str(tmp_path / "fotos"))
    assert holds_the_old_run(run_dir)
    fresh(run_dir)
    assert not list(run_dir.iterdir())


def test_what_fresh_puts_aside_comes_back_unless_the_new_run_begins(tmp_path):
    run_dir = old_run(tmp_path / "run")
    fresh(run_dir)
    with put_back_unless_begun(run_dir):
        (run_dir / "settings.json").write_text("new")
    assert holds_the_old_run(run_dir)
    fresh(run_dir)
    with put_back_unless_begun(run_dir):
        (run_dir / "settings.json").write_text("new")
        begun(run_dir)
    assert [path.read_text() for path in tmp_path.rglob("*.*") if path.is_file()] == ["new"]


def test_a_search_that_starts_over_begins_with_its_first_run(tmp_path):
    directory = old_run(tmp_path / "search")
    fresh(directory)
    with put_back_unless_begun(directory):
        (directory / "trial").mkdir()
        begun(directory / "trial")
    assert [path.name for path in tmp_path.rglob("*")] == ["search", "trial"]


def test_what_a_killed_command_has_put_aside_comes_back_with_the_next(tmp_path):
    run_dir = old_run(tmp_path / "run")
    for _ in range(2):
        fresh(run_dir)
        assert not list(run_dir.iterdir())
        (run_dir / "settings.json").write_text("new")
    started(run_dir)
    assert holds_the_old_run(run_dir)


def test_what_a_kill_has_left_of_a_deleted_run_does_not_come_back(tmp_path, monkeypatch):
    run_dir = old_run(tmp_path / "run")
    fresh(run_dir)
    (run_dir / "settings.json").write_text("new")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *given, **options: None)  # killed before the first file is gone
        begun(run_dir)
    started(run_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (run_dir / "settings.json").read_text() == "new"


def test_a_run_directory_may_be_a_link(tmp_path):
    disk = old_run(tmp_path / "disk")
    (tmp_path / "run").symlink_to(disk)
    fresh(tmp_path / "run")
    assert not list(disk.iterdir())
    started(tmp_path / "run")
    assert holds_the_old_run(disk)
