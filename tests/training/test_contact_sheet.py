"""The contact sheet, drawn from a version with a small net in it."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from training.contact_sheet import CAPTION, MARGIN, TILE, main
from training.export import write_saved_model
from training.preprocessing import View

CELL = (2 * TILE + 3 * MARGIN, TILE + CAPTION + 2 * MARGIN)  # pixels, width and height


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, strides=8, name="cam")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(2, name="logits")(x)
    model = keras.Model(inputs, keras.layers.Activation("softmax")(logits))
    directory = tmp_path_factory.mktemp("models")
    write_saved_model(model, ("bag", "boot"), directory / "fashion_mnist" / "1", "cam", View())
    return directory


@pytest.fixture
def photos(tmp_path) -> list[Path]:
    paths = []
    for number, colour in enumerate(("navy", "black", "darkred")):
        picture = Image.new("RGB", (90, 60), "white")
        picture.paste(colour, (20, 10, 50, 50))
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by a quarter
        paths.append(tmp_path / f"photo {number}.jpg")
        picture.save(paths[-1], exif=exif)
    return paths


def run(models: Path, *arguments: object) -> int:
    return main([str(a) for a in ("--models", models, *arguments)])


def test_a_sheet_of_photos(models, photos, tmp_path, capsys):
    output = tmp_path / "new" / "sheet.png"
    assert run(models, *photos, "-o", output, "--columns", 2) == 0
    assert f"wrote {output}: 3 photos, version 1" in capsys.readouterr().out
    with Image.open(output) as file:
        sheet = file.copy()
    assert sheet.size == (2 * CELL[0], 2 * CELL[1])
    view = np.asarray(sheet.convert("L"))[MARGIN : MARGIN + TILE, 2 * MARGIN + TILE :][:, :TILE]
    blocks = view.reshape(28, TILE // 28, 28, TILE // 28)
    assert (blocks == blocks[:, :1, :, :1]).all()  # enlarged crisply
    assert view[TILE // 2, TILE // 2] > 100  # the dark object is light
    assert view[0, 0] == 0
    photo = np.asarray(sheet)[MARGIN : MARGIN + TILE, MARGIN : MARGIN + TILE].astype(int)
    navy = (photo[..., 2] > 90) & (photo[..., 0] < 60) & (photo[..., 1] < 60)
    rows, columns = np.flatnonzero(navy.any(axis=1)), np.flatnonzero(navy.any(axis=0))
    assert np.ptp(columns) > np.ptp(rows)  # 30x40 lying, 40x30 upright


def test_what_cannot_be_read_is_named_and_the_rest_kept(models, photos, tmp_path, capsys):
    text, truncated, missing = (tmp_path / name for name in ("text.png", "truncated.jpg", "missing.jpg"))
    text.write_text("no image")
    truncated.write_bytes(photos[0].read_bytes()[:60])
    output = tmp_path / "sheet.png"
    assert run(models, text, photos[0], truncated, missing, tmp_path, "-o", output) == 1
    captured = capsys.readouterr()
    assert "1 photos" in captured.out
    assert f"{text}: image_bytes: expected an encoded PNG, JPEG, GIF or BMP image, got 8 bytes" in captured.err
    assert f"{truncated}: " in captured.err
    assert f"{missing}: No such file or directory" in captured.err
    assert f"{tmp_path}: Is a directory" in captured.err
    with Image.open(output) as sheet:
        assert sheet.size == CELL


def test_no_sheet_without_a_photo(models, tmp_path, capsys):
    output = tmp_path / "sheet.png"
    assert run(models, tmp_path / "missing.jpg", "-o", output) == 2
    assert "no sheet written" in capsys.readouterr().err
    assert not output.exists()


def test_a_missing_version_lists_those_there_are(models, photos, tmp_path, capsys):
    assert run(models, photos[0], "-o", tmp_path / "sheet.png", "--version", 7) == 2
    assert "has no version 7; there are: 1" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("-o", "sheet.txt"), ("-o", "sheet.png", "--columns", "0")])
def test_arguments_that_make_no_sense(models, photos, arguments):
    with pytest.raises(SystemExit):
        run(models, photos[0], *arguments)
