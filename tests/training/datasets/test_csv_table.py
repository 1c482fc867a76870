"""CSV files: with and without a header, in any notation of whole numbers, and every fault named by its line."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from training.datasets import DataError, Source, load_test, load_training
from training.datasets.csv_lines import read
from training.preprocessing import View

ROWS, SIDE = 60, 4
HEADER = "label," + ",".join(f"pixel{number}" for number in range(SIDE * SIDE))
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 128, (ROWS, SIDE, SIDE, 1), np.uint8)  # no light ground, which would be turned
LABELS = np.arange(ROWS) % 3


def lines(labels=LABELS, pixels=PIXELS) -> list[str]:
    return [
        ",".join(map(str, [label, *row]))
        for label, row in zip(labels, pixels.reshape(len(pixels), -1).tolist(), strict=True)
    ]


def write(path: Path, rows: list[str], end: str = "\n") -> Path:
    content = "".join(f"{row}{end}" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def refused(path: Path, message: str, **source) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_training(Source(str(path), **source))
    assert path.name in str(caught.value)


@pytest.mark.parametrize("name", ["pets.csv", "pets.CSV", "pets.csv.gz"])
@pytest.mark.parametrize("head", [[], [HEADER]])
def test_header_or_none_packed_or_not(tmp_path, name, head):
    table = read(write(tmp_path / name, head + lines()))
    np.testing.assert_array_equal(table.images, PIXELS)
    assert table.labels.tolist() == LABELS.astype(str).tolist()
    assert table.place(0).endswith(f"line {1 + len(head)}")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda rows: [row.replace(",", ".0,") + ".0" for row in rows], id="floats"),
        pytest.param(lambda rows: [row.replace(",", ".00e+00,") + ".00e+00" for row in rows], id="exponents"),
        pytest.param(lambda rows: [row.replace(",", " , ") for row in rows], id="spaces"),
        pytest.param(lambda rows: ['"' + row.replace(",", '","') + '"' for row in rows], id="quotes"),
        pytest.param(lambda rows: [f"{row}\r" for row in rows], id="line ends of Windows"),
        pytest.param(lambda rows: ["\ufeff" + rows[0], *rows[1:]], id="byte order mark"),
        pytest.param(lambda rows: [*rows[:7], "", " ", *rows[7:], ""], id="blank lines"),
    ],
)
def test_other_notations_of_the_same_numbers(tmp_path, change):
    table = read(write(tmp_path / "pets.csv", change(lines())))
    np.testing.assert_array_equal(table.images, PIXELS)
    assert table.labels.tolist() == LABELS.astype(str).tolist()


@pytest.mark.parametrize("column", [1, 9, SIDE * SIDE])
def test_the_labels_may_stand_in_a_column_called_so(tmp_path, column):
    rows = [row.split(",") for row in [HEADER, *lines()]]
    for row in rows:
        row.insert(column, row.pop(0))
    rows[0][column] = "Label"
    table = read(write(tmp_path / "pets.csv", [",".join(row) for row in rows]))
    np.testing.assert_array_equal(table.images, PIXELS)
    assert table.labels.tolist() == LABELS.astype(str).tolist()


def test_numbered_columns_are_a_header(tmp_path):
    table = read(write(tmp_path / "pets.csv", [",".join(["label", *map(str, range(SIDE * SIDE))]), *lines()]))
    np.testing.assert_array_equal(table.images, PIXELS)
    assert table.labels.tolist() == LABELS.astype(str).tolist()


def test_a_class_may_be_called_label(tmp_path):
    rows = lines(np.array(["label", "cat", "dog"])[LABELS])
    assert len(read(write(tmp_path / "pets.csv", rows)).labels) == ROWS


def test_dark_on_light_is_turned_as_the_served_graph_turns_it(tmp_path):
    view = View(size=SIDE)
    pixels = RNG.integers(0, 256, PIXELS.shape, np.uint8)
    pixels[:, 1:3, 1:3] = 10
    source = Source(str(write(tmp_path / "strokes.csv", lines(pixels=pixels))))
    data, test = load_training(source), load_test(source)
    served = {view.of_pixels(tf.constant(image, tf.float32)).numpy().astype(np.uint8).tobytes() for image in pixels}
    assert {image.tobytes() for part in (data.train, data.validation, test) for image in part.images} == served
    assert {image.tobytes() for image in pixels} != served


def test_a_name_with_a_comma_may_be_a_label(tmp_path):
    labels = np.array(['"T-shirt, top"', "Trouser", "Coat"])[LABELS]
    data = load_training(Source(str(write(tmp_path / "pets.csv", lines(labels)))))
    assert data.classes == ("Coat", "T-shirt, top", "Trouser")


def test_one_file_is_split_in_three(tmp_path):
    source = Source(str(write(tmp_path / "pets.csv", [HEADER, *lines()])), class_names=("cat", "dog", "owl"))
    data, test = load_training(source), load_test(source)
    assert data.classes == ("cat", "dog", "owl")
    assert data.preprocessing == "fashion_mnist"
    assert (len(data.train), len(data.validation), len(test)) == (45, 6, 9)
    assert np.bincount(test.labels).tolist() == [3, 3, 3]
    assert (data.train.images.dtype, data.train.labels.dtype) == (np.uint8, np.int64)
    known = {image.tobytes(): label for image, label in zip(PIXELS, LABELS, strict=True)}
    for part in (data.train, data.validation, test):
        assert [known.pop(image.tobytes()) for image in part.images] == part.labels.tolist()
    assert not known
    assert data.facts["source"] == "pets.csv"
    assert len(data.facts["sha256"]) == 64


def test_the_split_hangs_on_the_pixels_not_on_the_line(tmp_path):
    source = Source(str(write(tmp_path / "pets.csv", lines())))
    test_before = {image.tobytes() for image in load_test(source).images}
    trained_before = {image.tobytes() for image in load_training(source).train.images}
    write(tmp_path / "pets.csv", lines()[1:])
    test_now = {image.tobytes() for image in load_test(source).images}
    assert len(test_now - test_before) <= 1  # of the one class that has an image less
    assert len(test_now & trained_before) <= 1
    write(tmp_path / "pets.csv", lines()[::-1])
    assert {image.tobytes() for image in load_test(source).images} == test_before


def test_a_second_loading_is_the_same(tmp_path):
    source = Source(str(write(tmp_path / "pets.csv", lines())))
    first, again = load_training(source), load_training(source)
    np.testing.assert_array_equal(first.train.images, again.train.images)
    assert first.facts == again.facts


def test_limit_keeps_the_first(tmp_path):
    source = Source(str(write(tmp_path / "pets.csv", lines())))
    whole, few = load_training(source), load_training(source, limit=5)
    np.testing.assert_array_equal(few.train.images, whole.train.images[:5])
    assert (len(few.train), len(few.validation)) == (5, 5)


@pytest.fixture
def pair(tmp_path) -> Path:
    """A training CSV, whose first image is a test image as well, and a test CSV without the class 1."""
    write(tmp_path / "pets-train.csv", [HEADER, *lines()])
    images = RNG.integers(0, 128, (4, SIDE, SIDE, 1), np.uint8)
    images[3] = PIXELS[0]
    write(tmp_path / "pets-test.csv.gz", [HEADER, *lines([2, 0, 2, 0], images)])
    return tmp_path


def test_a_folder_with_a_training_and_a_test_file(pair):
    source = Source(str(pair))
    data, test = load_training(source), load_test(source)
    assert len(data.train) + len(data.validation) == ROWS - data.facts["dropped_duplicates"]
    assert data.facts["source"] == pair.name
    assert test.labels.tolist() == [2, 0, 2, 0]  # as training counts the classes
    tested = {image.tobytes() for image in test.images}
    assert not tested & {image.tobytes() for image in data.train.images}


def test_a_test_label_that_training_does_not_know(pair):
    write(pair / "pets-test.csv.gz", lines([0, 7], PIXELS[:2]))
    for load in (load_training, load_test):  # before hours of training, and after
        with pytest.raises(DataError, match=r"pets-test.csv.gz, line 2: label '7' is no class"):
            load(Source(str(pair)))


def test_test_images_of_another_size(pair):
    write(pair / "pets-test.csv.gz", ["0,1,2,3,4", "1,1,2,3,4"])
    with pytest.raises(DataError, match="the training and test images have 4x4 and 2x2 pixels; expected one size"):
        load_training(Source(str(pair)))


@pytest.mark.parametrize("others", [["more-train.csv"], ["validation.csv", "other-test.csv"]])
def test_a_folder_of_other_csvs_is_refused(pair, others):
    for name in others:
        write(pair / name, lines())
    with pytest.raises(DataError, match=rf"{others[0]}.*expected exactly one \*train\*.csv and one \*test\*.csv"):
        load_training(Source(str(pair)))


def with_cell(column: int, value: str, line: int = 42) -> list[str]:
    rows = [row.split(",") for row in [HEADER, *lines()]]
    rows[line - 1][column - 1] = value
    return [",".join(row) for row in rows]


@pytest.mark.parametrize(
    "value", ["x", "", " ", "nan", "inf", "256", "-1", "7.5", "1e9", "99999999999999999999", "0x10"]
)
def test_a_pixel_that_is_none_is_named_by_line_and_column(tmp_path, value):
    path = write(tmp_path / "pets.csv", with_cell(5, value))
    got = f"'{value}'" if value.strip() else "nothing"
    refused(path, rf"line 42, column 5 \(pixel3\): expected a whole number 0..255, got {got}")


def test_lines_are_counted_to_the_end_of_a_large_file(tmp_path):
    rows = [HEADER, *lines() * 20]
    rows[1200] = rows[1200].rpartition(",")[0] + ",300"
    refused(write(tmp_path / "pets.csv", rows), r"line 1,201, column 17 \(pixel15\): .* got '300'")


@pytest.mark.parametrize(("change", "count"), [(lambda row: row + ",3", 18), (lambda row: row[: row.rindex(",")], 16)])
def test_a_line_of_another_length(tmp_path, change, count):
    rows = lines()
    rows[30] = change(rows[30])
    rows[31] = (
        rows[31] if count == 16 else rows[31][: rows[31].rindex(",")]
    )  # so that together they have the right count
    refused(
        write(tmp_path / "pets.csv", rows),
        rf"line 31: {count} columns; expected 17 as in the first line, a label and 4x4",
    )


@pytest.mark.parametrize(
    ("value", "got"), [("", "label ''"), ("NaN", "label 'NaN'"), ("-1", "label '-1'"), ("1.5", "label '1.5'")]
)
def test_a_label_that_is_none(tmp_path, value, got):
    refused(write(tmp_path / "pets.csv", with_cell(1, value)), rf"line 42: {got}; expected a name or a whole number")


def test_a_label_beyond_the_class_names(tmp_path):
    refused(
        write(tmp_path / "pets.csv", [HEADER, *lines()]),
        r"line 4: label '2' is no class; expected '0', '1'",
        class_names=("cat", "dog"),
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "is empty"),
        (["", " "], "is empty"),
        ([HEADER], "no line after its header"),
        (["0,1,2,3"], r"4 columns; expected 1 for the label and a square number"),
        (["0," + ",".join("1" * 48)], "4x4x3 could be colour, in an order that a CSV does not tell"),
        (["0;1;2;3;4"], "are the values separated by commas"),
        ([",".join(map(str, range(785)))], "line 1: 0 columns are called 'label' and the first one '0'"),
        ([",label,a,b,c,d", "0,1,2,3,4,5"], "is it an index"),
        (["label,label,b,c,d", "0,1,2,3,4"], "line 1: 2 columns are called 'label'"),
        (
            ["pixel1,pixel2,pixel3,pixel4,class", "1,2,3,4,0"],
            "line 1: 0 columns are called 'label'.*first one 'pixel1'",
        ),
        (["0,1,2,3,4"] * 5, "every image is of the class '0'; expected at least two"),
        (["0,1,2,3,4"] * 5 + ["1,1,2,3,4"] * 2, r"at least 3 images of every class, got fewer of '1 \(2\)'"),
        (['0,1,2,"3,4', "0,1,2,3,4"], "line 1: unexpected end of data"),
    ],
)
def test_a_file_that_is_no_such_table(tmp_path, rows, message):
    refused(write(tmp_path / "pets.csv", rows), message)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "pets.csv"
    path.write_bytes(b"0,1,2,3,4\ncaf\xe9,1,2,3,4\n")
    refused(path, r"line 2: expected text in UTF-8")


@pytest.mark.parametrize(
    "spoil", [lambda packed: packed[:-20], lambda packed: b"0,1,2,3,4\n", lambda packed: packed[:5]]
)
def test_a_broken_gzip_file(tmp_path, spoil):
    path = write(tmp_path / "pets.csv.gz", lines())
    path.write_bytes(spoil(path.read_bytes()))
    refused(path, "truncated or no gzip file")
