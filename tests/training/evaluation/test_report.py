"""The whole report of a small version of colour photos: what is written, what is kept, what is left out."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import keras
import numpy as np
import pytest
from evaluation_helpers import CLASSES, PHOTOS
from PIL import Image

import training.evaluate
from training import manifest
from training.datasets import DataError, load_test
from training.evaluate import evaluate_export, main
from training.evaluation import explanations
from training.evaluation.report import evaluate_version
from training.evaluation.served import Served
from training.evaluation.subject import QUICK


def evaluate(models: Path, reports: Path, *arguments: str) -> int:
    return main(["--models", str(models), "--name", "photos", "--reports", str(reports), "--quick", *arguments])


@pytest.fixture(scope="module")
def base(models, tmp_path_factory) -> Path:
    """Version 1 and the same as version 2, and the report of 1 against 2."""
    base = tmp_path_factory.mktemp("evaluated")
    for version in (1, 2):
        shutil.copytree(models / "photos" / "1", base / "models" / "photos" / str(version))
    second = base / "models" / "photos" / "2"
    manifest.write(second, manifest.read(second) | {"version": 2})
    assert evaluate(base / "models", base / "reports", "--version", "1", "--against", "2") == 0
    return base


@pytest.fixture(scope="module")
def directory(base) -> Path:
    return base / "reports" / "photos" / "1"


@pytest.fixture(scope="module")
def report(directory) -> dict:
    return json.loads((directory / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(directory) -> str:
    return (directory / "index.html").read_text(encoding="utf-8")


def test_the_figures(report, photos):
    test = load_test(photos)
    assert report["classification"]["images"] == len(test) == PHOTOS["test"] * len(CLASSES)
    assert np.sum(report["classification"]["confusion_matrix"]) == len(test)
    assert report["data"]["counts"]["train"] == dict.fromkeys(CLASSES, PHOTOS["train"])
    assert report["calibration"]["temperature"] == 0.8
    assert (report["against"]["version"], report["against"]["mcnemar_p"]) == ("2", 1.0)
    assert report["speed"]["cost"]["macs"] > 0
    assert [row["batch"] for row in report["speed"]["latency"]] == list(QUICK.batch_sizes)
    assert [line.split(":")[0] for line in report["left_out"]] == ["How true the explanations are"]


def test_mistakes_have_neighbours_in_the_training_images(report):
    wrong = len(CLASSES) * PHOTOS["test"] - np.trace(report["classification"]["confusion_matrix"])
    assert len(report["mistakes"]) == min(24, wrong) > 0
    for row in report["mistakes"]:
        assert row["true"] != row["predicted"]
        assert all(0 <= one["position"] < len(CLASSES) * PHOTOS["train"] for one in row["neighbours"])
        cosines = [one["cosine"] for one in row["neighbours"]]
        assert cosines == sorted(cosines, reverse=True)


PICTURES = (
    "confusion_matrix",
    "confusion_matrix_normalised",
    "class_scores",
    "class_bias",
    "reliability",
    "robustness",
    "robustness_by_class",
    "latency",
    "class_balance",
    "samples",
    "pixels",
    "planes",
    "explanations",
    "explanations_by_class",
)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_png_of_150_dpi_and_svg(directory, name):
    with Image.open(directory / f"{name}.png") as picture:
        assert picture.info["dpi"] == pytest.approx((150, 150), abs=0.5)
        assert min(picture.size) > 250
        assert np.asarray(picture.convert("L")).std() > 5
    assert "<svg" in (directory / f"{name}.svg").read_text(encoding="utf-8")


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.sources, self.targets, self.ids, self.tags = [], [], set(), set()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.add(tag)
        self.ids.add(attributes.get("id"))
        self.sources += [attributes["src"]] if "src" in attributes else []
        self.targets += [attributes["href"]] if "href" in attributes else []


@pytest.fixture(scope="module")
def links(page) -> Links:
    parser = Links()
    parser.feed(page)
    return parser


def test_the_page_needs_nothing_else(links, page):
    assert links.sources
    assert all(source.startswith("data:image/") for source in links.sources)
    assert "script" not in links.tags
    assert "default-src 'none'" in page


def test_every_link_leads_somewhere_on_the_page(links, report):
    assert {target.removeprefix("#") for target in links.targets} <= links.ids
    confusion = np.array(report["classification"]["confusion_matrix"])
    for row, column in np.ndindex(*confusion.shape):
        assert (f"cell-{row}-{column}" in links.ids) == (confusion[row, column] > 0)


def test_class_names_are_escaped(page, directory):
    assert CLASSES[0] not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    card = (directory / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "\\<img src=x onerror=alert(1)\\>" in card
    (row,) = (line for line in card.splitlines() if line.startswith("| blue"))
    assert row.startswith("| blue\\|sky |")


def test_the_card_says_where_from_and_how_good(directory, report):
    card = (directory / "MODEL_CARD.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (.*)$", card, re.M)
    assert sections == ["Purpose", "Figures", "Limits", "Data", "Training", "Initial weights", "Licence"]
    assert f"| accuracy | {report['classification']['accuracy']:.4f} (95 % Wilson" in card
    assert "none: random initial weights" in card
    assert "Data: not recorded; ask who gave the images" in card


def test_a_second_run_asks_the_model_nothing(base, directory, report, monkeypatch):
    monkeypatch.setattr(Served, "signature", None)
    monkeypatch.setattr(keras.models, "load_model", None)
    assert evaluate(base / "models", base / "reports", "--version", "1", "--against", "2") == 0
    assert json.loads((directory / "report.json").read_text(encoding="utf-8")) == report


def test_in_full_explanations_are_put_to_the_test(base, photos, tmp_path, monkeypatch):
    """With the data where the command says: where they were when the version was trained, they are no more."""
    few = dataclasses.replace(QUICK, name="full", faithfulness_images=6, explained=1, shap=True)
    monkeypatch.setattr(training.evaluate, "FULL", few)
    version = shutil.copytree(base / "models" / "photos" / "1", tmp_path / "models" / "photos" / "1")
    described = manifest.read(version)
    described["training"]["dataset"] = str(tmp_path / "moved")
    manifest.write(version, described)
    arguments = ["--models", str(tmp_path / "models"), "--name", "photos", "--reports", str(tmp_path)]
    assert main(arguments) == 2
    assert main([*arguments, "--dataset", photos.dataset]) == 0
    directory = tmp_path / "photos" / "1"
    found = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    assert {"score_cam@relu_3", "grad_cam@relu_1", "layer_cam@relu_1", "shap", "random"} < set(
        found["faithfulness"]["methods"]
    )
    assert found["left_out"] == []
    page = (directory / "index.html").read_text(encoding="utf-8")
    assert "Are the pictures true?" in page
    best = found["faithfulness"]["best"]["relu_3"]
    assert f"<b>{found['faithfulness']['methods'][best]['title']}</b>" in page
    assert "Faithfulness of the methods" in page


def test_faithfulness_of_another_model_is_not_shown(tmp_path):
    (tmp_path / "faithfulness.json").write_text(json.dumps({"model_sha256": "0" * 64}))
    described = {"name": "photos", "version": 3, "files": {"assets.extra/model.keras": "1" * 64}}
    found, why_not = explanations.read(tmp_path, described)
    assert found is None
    assert why_not.endswith(
        "is of another model; measure again: python -m training.faithfulness --name photos --version 3"
    )


def test_without_a_keras_model_the_rest_is_reported(base, photos, tmp_path, capsys):
    shutil.copytree(base / "models" / "photos" / "1", tmp_path / "models" / "photos" / "1")
    (tmp_path / "models" / "photos" / "1" / "assets.extra" / "model.keras").unlink()
    assert evaluate(tmp_path / "models", tmp_path / "reports") == 0
    out = capsys.readouterr().out
    assert "left out: Neighbours, multiply-accumulates, explanations and the plane of features need" in out
    assert "expected the Keras model of training.export; export the version again" in out
    assert "Left out" in (tmp_path / "reports" / "photos" / "1" / "index.html").read_text(encoding="utf-8")


def test_data_of_other_classes_are_refused(base, photos, tmp_path):
    for part in PHOTOS:
        shutil.copytree(Path(photos.dataset) / part, tmp_path / part)
        (tmp_path / part / "green").rename(tmp_path / part / "violet")
    with pytest.raises(DataError, match=r"expected the 3 of .*/1: .*Missing: green\. Unknown: violet"):
        evaluate_version(
            base / "models" / "photos" / "1", type(photos)(str(tmp_path), image_size=32), QUICK, tmp_path / "report"
        )


def test_data_of_another_shape_are_refused(base, photos, tmp_path):
    version = base / "models" / "photos" / "1"
    with pytest.raises(DataError, match=r"have the shape 16x16x3 .*expected 32x32x3, as those that .*/1 was trained"):
        evaluate_version(version, type(photos)(photos.dataset, image_size=16), QUICK, tmp_path / "report")


def test_an_export_gets_its_figures_before_it_is_published(base, photos, tmp_path):
    export = tmp_path / "export"
    shutil.copytree(base / "models" / "photos" / "1", export)
    content = manifest.read(export)
    manifest.write(export, content | {"metrics": {"validation": {"accuracy": 0.5}}})
    found = evaluate_export(export, load_test(photos))
    assert manifest.read(export)["metrics"] == {"validation": {"accuracy": 0.5}, "test": found}
    assert manifest.hashes(export) == manifest.read(export)["files"]
    assert [path.suffix for path in (export / "assets.extra").glob("confusion*")] == [".png"]
