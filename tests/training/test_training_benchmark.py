"""Time to an accuracy: which plans are compared, and what is reported."""

from __future__ import annotations

import dataclasses
import json

import pytest
from PIL import Image

from training.benchmark import PROGRESSIVE, THROUGHOUT, main, plans, report, run
from training.settings import Settings, SettingsError, Stage

SETTINGS = Settings(
    backbone="mini_cnn",
    backbone_weights="none",
    train_limit=64,
    batch_size=32,
    image_size=28,
    head_epochs=0,
    stages=(Stage(14, 1), Stage(28, 2, learning_rate=5e-4)),
    stop_at_accuracy=0.001,
)


def test_both_plans_have_as_many_epochs_and_one_cosine():
    found = plans(SETTINGS)
    assert found[PROGRESSIVE].stages == (Stage(14, 1), Stage(28, 2))
    assert found[THROUGHOUT].stages == (Stage(28, 3),)


def test_a_preset_of_one_size_grows_from_half_of_it():
    found = plans(dataclasses.replace(SETTINGS, stages=(Stage(28, 5),)))
    assert found[PROGRESSIVE].stages == (Stage(14, 2), Stage(28, 3))
    assert found[THROUGHOUT].stages == (Stage(28, 5),)
    with pytest.raises(SettingsError, match="at least two epochs, got 1"):
        plans(dataclasses.replace(SETTINGS, stages=(Stage(28, 1),)))


def test_a_run_ends_at_the_target_and_its_time_is_reported(tmp_path):
    results = run(SETTINGS, tmp_path)
    assert json.loads((tmp_path / "time_to_accuracy.json").read_text()) == results
    for name, epochs in ((PROGRESSIVE, 2), (THROUGHOUT, 1)):  # the last stage begins after the first epoch, or with it
        lines = (tmp_path / name.replace(" ", "_") / "history.jsonl").read_text().splitlines()
        assert len(lines) == epochs
        assert results[name]["seconds_to_target"] > 0
    assert set(results[PROGRESSIVE]["images_per_s"]) == {"14 px", "28 px"}
    assert "of the time" in report(results, 0.001)
    with Image.open(tmp_path / "time_to_accuracy.png") as picture:
        assert picture.width > 1000


def test_the_average_of_the_weights_reaches_the_target_too(tmp_path):
    results = run(dataclasses.replace(SETTINGS, ema_momentum=0.999, stop_at_accuracy=1.0), tmp_path)
    for name, row in results.items():
        lines = (tmp_path / name.replace(" ", "_") / "history.jsonl").read_text().splitlines()
        epochs = [epoch for epoch in map(json.loads, lines) if epoch["last_stage"]]
        assert all("ema_val_accuracy" in epoch for epoch in epochs)
        assert row["val_accuracy"] == max(max(e["val_accuracy"], e["ema_val_accuracy"]) for e in epochs)


def test_a_target_that_is_not_reached_is_no_time(tmp_path):
    results = run(Settings(**(vars(SETTINGS) | {"stop_at_accuracy": 1.0})), tmp_path)
    assert results[PROGRESSIVE]["seconds_to_target"] is None
    assert "not reached" in report(results, 1.0)
    assert "of the time" not in report(results, 1.0)


def test_fresh_keeps_the_old_benchmark_where_the_new_one_cannot_begin(tmp_path, capsys):
    (tmp_path / "settings.json").write_text("old")
    assert main(["--preset", "smoke", "--run-dir", str(tmp_path), "--fresh", "--init-from", "987"]) == 2
    assert "--init-from 987: no " in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_without_a_target_there_is_nothing_to_measure(tmp_path, capsys):
    with pytest.raises(SettingsError, match="stop_at_accuracy"):
        run(Settings(**(vars(SETTINGS) | {"stop_at_accuracy": None})), tmp_path)
    assert main(["--preset", "smoke", "--target", "2"]) == 2
    assert "stop_at_accuracy must lie in 0..1" in capsys.readouterr().err
