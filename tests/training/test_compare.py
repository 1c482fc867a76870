"""Several models on one dataset: which are meant, what is measured, and going on after an interruption."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from training import compare as module
from training.compare import compare, main, measure, parse_model, table
from training.convert import latency_ms
from training.datasets import Split
from training.settings import Settings, SettingsError, Stage

SETTINGS = Settings(
    backbone_weights="none", train_limit=64, batch_size=32, image_size=32, head_epochs=0, stages=(Stage(32, 1),)
)


def test_a_model_has_settings_of_its_own():
    name, own = parse_model("vgg16:image_size=48,epochs=3,frozen_layers=-1,backbone_weights=none", SETTINGS)
    assert (name, own.backbone, own.frozen_layers) == ("vgg16", "vgg16", -1)
    assert own.stages == (Stage(48, 3),)
    assert own.batch_size == SETTINGS.batch_size
    assert parse_model("random_forest", SETTINGS) == ("random_forest", SETTINGS)


def test_what_keras_has_no_weights_for_begins_with_random_ones():
    downloads = Settings(stages=SETTINGS.stages, image_size=32)
    assert parse_model("mini_cnn", downloads)[1].backbone_weights == "none"
    assert parse_model("resnet50", downloads)[1].backbone_weights == "imagenet"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("random_forrest", "no model 'random_forrest' .did you mean 'random_forest'"),
        ("mini_cnn:epochs", "expected NAME:KEY=VALUE"),
        ("mini_cnn:epoch=2", "unknown setting 'epoch'"),
        ("mini_cnn:epochs=1.5", "mini_cnn:epochs=1.5: epochs: expected int, got 1.5"),
        ("knn:epochs=2", "a classical model takes no settings"),
        ("mobilenet_v2:image_size=8", "at least 32 px, got 8"),
        ("mini_cnn:split_seed=1,test_fraction=0.3", "split_seed, test_fraction is of the data, which all models share"),
    ],
)
def test_a_model_that_cannot_be_is_refused_before_any_is_trained(tmp_path, text, message):
    with pytest.raises(SettingsError, match=message):
        compare(SETTINGS, ["mini_cnn", text], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_measured():
    images = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
    test = Split(images, (np.arange(40) >= 20).astype(np.int64))
    measured = measure(lambda batch: (batch[:, 0, 0, 0] >= 22).astype(np.int64), test, ("low", "high"))
    assert measured["accuracy"] == 38 / 40
    assert measured["accuracy_wilson_95"][0] < 38 / 40 < measured["accuracy_wilson_95"][1]
    assert measured["macro_f1"] == pytest.approx((40 / 42 + 36 / 38) / 2)


def test_networks_and_classical_models_side_by_side_and_again(tmp_path, monkeypatch, capsys):
    models, timed = ["mini_cnn", "knn"], []
    monkeypatch.setattr(module, "latency_ms", lambda call, image: timed.append(image) or latency_ms(call, image))
    rows = compare(SETTINGS, models, tmp_path)
    assert all(row["latency_ms"] > 0 for row in rows)
    assert [(image.shape, image.dtype) for image in timed] == [((1, 32, 32, 3), "float32"), ((1, 28, 28, 1), "uint8")]
    assert np.abs(timed[0]).max() == 1  # scaled already, as the one that ONNX is timed on
    assert rows[0]["converted"] == []
    rows = compare(SETTINGS, models, tmp_path, ["onnx"])  # asked for afterwards
    assert [row["model"] for row in rows] == models
    assert rows[0]["parameters"] > 0
    assert rows[0]["macs"] > 0
    assert rows[1]["parameters"] is None
    assert all(0 <= row["accuracy"] <= 1 and row["bytes"] > 0 and row["train_s"] > 0 for row in rows)
    assert [one["format"] for one in rows[0]["converted"]] == ["ONNX"]
    assert "mini_cnn, ONNX" in table(rows)
    assert "in Keras on all threads of the CPU, or on the GPU, in ONNX and LiteRT on one thread" in table(rows)
    assert json.loads((tmp_path / "results.json").read_text()) == rows
    assert (tmp_path / "results.md").read_text() == table(rows) + "\n"
    with Image.open(tmp_path / "results.png") as picture:
        assert picture.width > 500
    monkeypatch.setattr(module, "train", None)
    monkeypatch.setattr(module, "fit_classical", None)
    monkeypatch.setattr(module, "convert", None)
    assert compare(SETTINGS, models, tmp_path, ["onnx"]) == rows


def test_fresh_keeps_the_old_comparison_until_a_model_of_the_new_one_begins(tmp_path, monkeypatch, capsys):
    for name in ("settings.json", "results.json"):
        (tmp_path / name).write_text("{}")
    options = ["--preset", "smoke", "--run-dir", str(tmp_path), "--fresh", "--models"]
    assert main([*options, "mini_cnn:init_from='987'"]) == 2
    assert "--init-from 987: no " in capsys.readouterr().err
    assert (tmp_path / "results.json").read_text() == "{}"
    figures = {"accuracy": 0.5, "accuracy_wilson_95": (0.4, 0.6), "macro_f1": 0.5, "macro_f1_bootstrap_95": (0.4, 0.6)}
    sizes = {"parameters": None, "macs": None, "bytes": 1, "train_s": 1.0, "latency_ms": 1.0}
    monkeypatch.setattr(module, "classical", lambda *given: figures | sizes | {"settings": ""})
    assert main([*options, "knn"]) == 0
    assert [row["model"] for row in json.loads((tmp_path / "results.json").read_text())] == ["knn"]


def test_photos_are_read_at_the_size_of_the_model_that_is_asked(tmp_path, monkeypatch):
    colours = {"red": (200, 0, 0), "blue": (0, 0, 200)}
    for name, colour in colours.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (50, 40), (*colour[:1], number, *colour[2:])).save(
                tmp_path / "photos" / name / f"{number}.png"
            )
    seen = []

    def look(settings, run_dir, test):
        run_dir.mkdir()
        seen.append((settings.image_size, test.images.shape[1:]))
        figures = {
            "accuracy": 0.5,
            "accuracy_wilson_95": (0.4, 0.6),
            "macro_f1": 0.5,
            "macro_f1_bootstrap_95": (0.4, 0.6),
        }
        sizes = {"parameters": 1, "macs": 1, "bytes": 1, "train_s": 1.0, "latency_ms": 1.0}
        return figures | sizes | {"settings": "", "converted": []}

    monkeypatch.setattr(module, "network", look)
    settings = dataclasses.replace(SETTINGS, dataset=str(tmp_path / "photos"))
    compare(settings, ["mini_cnn:image_size=48", "mini_cnn:image_size=64", "mini_cnn"], tmp_path / "out")
    assert seen == [(48, (48, 48, 3)), (64, (64, 64, 3)), (32, (32, 32, 3))]
