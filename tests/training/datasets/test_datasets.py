"""Which loader a name or path gets, what a model is called after it, and what is said of one that is unknown."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image

from training.datasets import (
    DataError,
    Source,
    check_exists,
    default_name,
    load_test,
    load_training,
    names,
    place,
    png,
)


def test_the_names():
    assert names() == ("fashion_mnist", "cifar10")


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("fashion_mnist", "fashion_mnist"),
        ("cifar10", "cifar10"),
        ("photos/My Clothes (2)", "my_clothes_2"),
        ("photos/shoes.v2/", "shoes_v2"),
        ("data/Digits.csv", "digits"),
        ("data/digits.CSV.GZ", "digits"),
        ("~/Übung.npz", "ubung"),
        ("2024", "model_2024"),
        ("写真", "model"),
    ],
)
def test_a_model_is_called_after_its_dataset(dataset, name):
    assert default_name(Source(dataset)) == name


def test_the_folder_one_stands_in_has_a_name(tmp_path, monkeypatch):
    (tmp_path / "shoes").mkdir()
    monkeypatch.chdir(tmp_path / "shoes")
    assert default_name(Source(".")) == "shoes"


def test_a_place_is_the_same_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "linked").symlink_to("photos")
    spellings = ("photos", "photos/", "./photos", "~/photos", "linked", "elsewhere/../photos", str(tmp_path / "photos"))
    assert {place(dataset) for dataset in spellings} == {str(tmp_path / "photos")}
    assert place("fashion_mnist") == "fashion_mnist"
    assert place("./fashion_mnist") == str(tmp_path / "fashion_mnist")
    assert place("~nobody-is-called-so/photos") == str(tmp_path / "~nobody-is-called-so/photos")


@pytest.mark.parametrize("look", [load_training, load_test, check_exists])
def test_a_path_that_is_no_utf8_is_refused_before_it_is_read(tmp_path, look):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(folder)
    with pytest.raises(DataError, match=r"dataset .*/caf\\xe9: expected a path in UTF-8; rename the file or folder"):
        look(Source(folder))


@pytest.mark.parametrize("load", [load_training, load_test])
def test_an_unknown_name_lists_the_known_and_the_nearest(load):
    with pytest.raises(
        DataError, match=r"(?s)'fashion-mnist' is neither.*did you mean 'fashion_mnist'.*cifar10.*folder"
    ):
        load(Source("fashion-mnist"))


def test_a_missing_path_names_its_neighbour(tmp_path):
    (tmp_path / "digits.npz").touch()
    with pytest.raises(DataError, match=r"digit.npz' is neither.*did you mean '.*/digits.npz'"):
        load_training(Source(str(tmp_path / "digit.npz")))


def test_a_missing_path_without_any_neighbour(tmp_path):
    with pytest.raises(DataError, match=r"else' is neither known nor a path that exists; expected one of"):
        load_training(Source(str(tmp_path / "nowhere" / "else")))


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "images.zip"
    path.touch()
    with pytest.raises(DataError, match=r"images.zip' is none of these files; .*\.csv, \.csv\.gz, \.npz"):
        load_training(Source(str(path)))


@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_every_pixel(channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    decoded = np.asarray(Image.open(io.BytesIO(png(image))))
    np.testing.assert_array_equal(decoded.reshape(image.shape), image)
