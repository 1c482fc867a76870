"""The command that draws explanations, on a version with a small net."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from training.explain import class_rows, explained, main, summary
from training.explanation import methods
from training.explanation.methods import METHODS
from training.explanation.version import open_version


@pytest.fixture
def photos(tmp_path):
    paths = []
    for number, colour in enumerate(("navy", "darkred")):
        picture = Image.new("RGB", (90, 60), "white")
        picture.paste(colour, (20, 10, 50, 50))
        paths.append(tmp_path / f"photo {number}.png")
        picture.save(paths[-1])
    return paths


@pytest.fixture
def run(models):
    return lambda *arguments: main([str(one) for one in ("--models", models, "--version", 1, *arguments)])


def test_photos_with_every_method(run, photos, tmp_path, capsys):
    output = tmp_path / "new" / "sheet.png"
    assert run(*photos, "--method", "all", "--output", output) == 0
    assert f"wrote {output}: 2 rows, fashion_mnist, version 1" in capsys.readouterr().out
    with Image.open(output) as sheet:
        assert sheet.width > 2 * sheet.height


def test_a_folder_gets_both_formats(run, photos, tmp_path):
    assert run(photos[0], "--class", "bag", "--against", "8", "--layer", "relu_2", "--output", tmp_path) == 0
    assert {path.name for path in tmp_path.glob("explanation.*")} == {"explanation.png", "explanation.svg"}


def test_test_images_of_a_class(run, tmp_path, capsys):
    assert run("--of-class", "Sandal", "--count", 3, "--output", tmp_path / "sheet.svg") == 0
    assert "3 rows" in capsys.readouterr().out


def test_the_mean_of_each_class(models):
    version = open_version(models, "fashion_mnist", 1)
    chosen = [(METHODS["hires_cam"], "relu_3"), (METHODS["shap"], None)]
    means, columns = summary(version, chosen, [7, 2], count=3)
    assert [row.lines for row in means] == [("Sneaker", "mean of 3"), ("Pullover", "mean of 3")]
    for place, class_id in enumerate((7, 2)):
        rows = class_rows(version, class_id, 3)
        np.testing.assert_allclose(means[place].view, np.mean([row.view for row in rows], axis=0))
        for column, expected in zip(columns, explained(version, rows, chosen, class_id)[1], strict=True):
            peak = np.abs(expected.maps).max()
            np.testing.assert_allclose(column.maps[place], expected.maps.mean(axis=0), atol=1e-4 * peak)


def test_a_sheet_of_classes(run, tmp_path, capsys):
    assert run("--summary", "--count", 2, "--output", tmp_path / "sheet.png") == 0
    assert "10 rows" in capsys.readouterr().out
    assert run("--summary", "--of-class", "Bag", "--count", 2, "--output", tmp_path / "sheet.png") == 0
    assert ": 1 row, " in capsys.readouterr().out


def test_without_shap_one_line(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(methods, "find_spec", lambda name: None)
    assert run("--of-class", "Bag", "--count", 1, "--method", "all", "--output", tmp_path / "sheet.png") == 0
    advice = f"{sys.executable} -m pip install -r training/requirements-extra.txt"
    assert f"left out: shap: not installed; {advice}\n" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "shap", None)
    assert run("--of-class", "Bag", "--count", 1, "--method", "shap", "--output", tmp_path / "sheet.png") == 2
    assert f"error: shap needs the package shap, which is not installed: {advice}\n" in capsys.readouterr().err


def test_what_is_written_beside(models):
    version = open_version(models, "fashion_mnist", 1)
    rows = class_rows(version, 2, 3)
    labels = version.test_images().labels
    assert [labels[int(row.lines[0].split()[-1])] for row in rows] == [2, 2, 2]
    told, [column] = explained(version, rows, [(METHODS["grad_cam"], "relu_2")], class_id=1)
    assert column.title == "Grad-CAM\nrelu_2"
    assert not column.signed
    own = version.network().predicted(version.to_model(np.stack([row.view for row in rows])))
    for row, predicted in zip(told, own, strict=True):
        assert row.lines[1].startswith(version.classes[predicted])
        assert (len(row.lines) == 3) == (predicted != 1)
    _, [contrast] = explained(version, rows, [(METHODS["grad_cam"], "relu_2")], class_id=1, against_id=1)
    assert contrast.signed
    assert not contrast.maps.any()


def test_both_engines_draw_the_same(models):
    version = open_version(models, "fashion_mnist", 1)
    rows, chosen = class_rows(version, 5, 4), [(METHODS["grad_cam"], "relu_3"), (METHODS["saliency"], None)]
    for against in (None, 3):
        ours, theirs = (
            explained(version, rows, chosen, against_id=against, engine=engine)[1]
            for engine in ("ours", "tf-keras-vis")
        )
        if against is None:
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(one.maps, other.maps, atol=1e-3 * one.maps.max())
        assert [one.title for one in ours] == [one.title for one in theirs]


def test_what_cannot_be_read_is_left_out(run, photos, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert run(photos[0], tmp_path / "broken.png", tmp_path / "gone.png", "--output", tmp_path / "sheet.png") == 1
    streams = capsys.readouterr()
    assert "broken.png: " in streams.err
    assert "gone.png: No such file" in streams.err
    assert ": 1 row, " in streams.out
    assert run(tmp_path / "broken.png", "--output", tmp_path / "none.png") == 2
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "gradcam"], "did you mean 'grad_cam'"),
        (["--layer", "relu_9"], "layer 'relu_9' does not exist (did you mean"),
        (["--class", "Bags"], "no class 'Bags' (did you mean 'Bag'?)"),
        (["--against", "11"], "no class '11'"),
        (["--version", "2"], "has no assets.extra/model.keras"),
        (["--version", "9"], "has no version 9; there are: 1, 2"),
        (["--name", "fashion"], "no model 'fashion'"),
        (["--method", "eigen_cam", "--against", "Coat"], "gives every class the same map"),
        (["--method", "hires_cam", "--engine", "tf-keras-vis"], "tf-keras-vis has no hires_cam; expected one of"),
    ],
)
def test_what_does_not_exist(arguments, message, run, capsys):
    assert run("--of-class", "Bag", "--count", 1, *arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected images, or --of-class"),
        (["a.png", "--of-class", "Bag"], "expected images, or --of-class"),
        (["a.png", "--output", "sheet.doc"], "expected a folder, or a file that ends in .png"),
        (["--summary", "--class", "Bag"], "--summary explains each class"),
        (["--of-class", "Bag", "--count", "0"], "--count: expected at least 1"),
    ],
)
def test_wrong_use(arguments, message, run, capsys):
    with pytest.raises(SystemExit):
        run(*arguments)
    assert message in capsys.readouterr().err
