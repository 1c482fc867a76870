"""The command that measures faithfulness, on a version with a small net."""

from __future__ import annotations

import json

import pytest

from training import faithfulness
from training.explanation.faithfulness import METRICS
from training.faithfulness import main

CHOSEN = ("--method", "layer_cam", "--method", "saliency")


@pytest.fixture
def run(models):
    return lambda *arguments: main(
        [str(one) for one in ("--models", models, "--version", 1, "--images", 12, *arguments)]
    )


def test_a_report(run, tmp_path, capsys):
    assert run(*CHOSEN, "--output", tmp_path) == 0
    report = json.loads((tmp_path / "faithfulness.json").read_text())
    assert list(report["methods"]) == [
        "layer_cam@relu_3", "saliency", "layer_cam@relu_2", "layer_cam@relu_1", "random", "sobel",
    ]  # fmt: skip
    assert report["images"] == 12
    assert report["version"] == 1
    for one in report["methods"].values():
        assert set(one["metrics"]) == set(METRICS)
        for value in one["metrics"].values():
            assert value["low"] <= value["mean"] <= value["high"]
    assert report["methods"]["layer_cam@relu_1"]["map_size"] == [32, 32]
    assert set(report["best"]) == {"relu_3", "relu_2", "relu_1", "input"}
    assert (tmp_path / "faithfulness.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "faithfulness.svg").read_text()
    printed = capsys.readouterr().out
    assert "12 test images of fashion_mnist version 1" in printed
    assert "best at relu_2: LayerCAM" in printed


def test_an_interrupted_run_goes_on(run, tmp_path, monkeypatch, capsys):
    measured, measure = [], faithfulness.measure

    def until_the_second(candidate, subject):
        if len(measured) == 1:
            raise KeyboardInterrupt
        measured.append(candidate.key)
        return measure(candidate, subject)

    monkeypatch.setattr(faithfulness, "measure", until_the_second)
    assert run(*CHOSEN, "--layer", "relu_3", "--output", tmp_path) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "faithfulness").iterdir()] == ["layer_cam@relu_3.json"]
    again = []
    monkeypatch.setattr(faithfulness, "measure", lambda *both: again.append(both[0].key) or measure(*both))
    assert run(*CHOSEN, "--layer", "relu_3", "--output", tmp_path) == 0
    assert again == ["saliency", "random", "sobel"]
    assert run("--method", "saliency", "--output", tmp_path, "--images", 10) == 0
    assert again[3:] == ["saliency", "random", "sobel"]  # other images: measured anew


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "gradcam"], "did you mean 'grad_cam'"),
        (["--layer", "relu_9"], "layer 'relu_9' does not exist (did you mean"),
        (["--version", "2"], "has no assets.extra/model.keras"),
        (["--name", "fashion"], "no model 'fashion'"),
    ],
)
def test_what_does_not_exist(arguments, message, run, tmp_path, capsys):
    assert run("--output", tmp_path, *arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
