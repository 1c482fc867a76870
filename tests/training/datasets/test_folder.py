"""Folders of pictures: both layouts, what is ignored and refused, damaged files, repeats, and a split that stays."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.datasets import DataError, Source, load_test, load_training
from training.datasets import folder as folder_module

COUNTS = {"cat": 20, "dog": 10, "owl": 4}
COLOURS = {name: (40 + 60 * number, 0, 200 - 60 * number) for number, name in enumerate(COUNTS)}
SIZE = 8


def picture(path: Path, colour: tuple[int, int, int], number: int) -> None:
    """One of a size and with a last colour value of its own, so that no two files are the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10 + number, 12), (*colour[:2], number)).save(path)


def fill(root: Path, counts=COUNTS, start: int = 0) -> Path:
    for name, count in counts.items():
        for number in range(start, start + count):
            picture(root / name / f"{number}.png", COLOURS[name], number)
    return root


@pytest.fixture
def photos(tmp_path) -> Path:
    return fill(tmp_path / "photos")


def source(root: Path, **settings) -> Source:
    return Source(str(root), image_size=SIZE, **settings)


def shown(split) -> list[tuple[str, int]]:
    """The class by the picture's colour, and the number of each picture."""
    by_red = {red: name for name, (red, _, _) in COLOURS.items()}
    return [(by_red[int(image[0, 0, 0])], int(image[0, 0, 2])) for image in split.images]


def refused(root: Path, message: str, load=load_training, **settings) -> None:
    with pytest.raises(DataError, match=message):
        load(source(root, **settings))


def test_a_folder_a_class_is_split_in_three(photos):
    data, test = load_training(source(photos)), load_test(source(photos))
    assert (data.classes, data.preprocessing) == (("cat", "dog", "owl"), "colour")
    assert [np.bincount(part.labels).tolist() for part in (data.train, data.validation, test)] == [
        [15, 7, 2],
        [2, 1, 1],
        [3, 2, 1],
    ]
    assert data.train.images.shape == (24, SIZE, SIZE, 3)
    assert (data.train.images.dtype, test.labels.dtype) == (np.uint8, np.int64)
    seen = shown(data.train) + shown(data.validation) + shown(test)
    assert sorted(seen) == sorted((name, number) for name, count in COUNTS.items() for number in range(count))
    for part in (data.train, data.validation, test):
        assert [name for name, _ in shown(part)] == [data.classes[label] for label in part.labels]


def test_facts_say_what_was_read(photos):
    facts = load_training(source(photos)).facts
    assert facts["source"] == "photos"
    assert facts["counts"]["validation"] == {"cat": 2, "dog": 1, "owl": 1}
    assert (facts["dropped_duplicates"], facts["skipped"]) == (0, [])
    assert load_training(source(photos)).facts == facts
    picture(photos / "cat" / "0.png", COLOURS["cat"], 99)
    assert load_training(source(photos)).facts["sha256"] != facts["sha256"]


def test_the_split_hangs_on_seed_and_names_alone(photos, tmp_path):
    test = shown(load_test(source(photos)))
    assert shown(load_test(source(photos))) == test
    assert shown(load_test(source(photos.rename(tmp_path / "elsewhere")))) == test
    assert set(shown(load_test(source(tmp_path / "elsewhere", split_seed=1)))) != set(test)


@pytest.mark.parametrize("validation", ["validation", "val", "Val"])
def test_given_parts_stay_as_they_are(tmp_path, validation):
    for start, part in ((0, "train"), (100, validation), (200, "test")):
        fill(tmp_path / part, {"cat": 3, "dog": 2}, start)
    data, test = load_training(source(tmp_path)), load_test(source(tmp_path))
    for start, part in ((0, data.train), (100, data.validation), (200, test)):
        assert sorted(shown(part)) == [("cat", start + n) for n in range(3)] + [("dog", start + n) for n in range(2)]


@pytest.mark.parametrize(
    ("given", "sizes"), [(["train"], (24, 4, 6)), (["train", "test"], (30, 4, 34)), (["train", "val"], (28, 34, 6))]
)
def test_a_part_that_is_missing_is_split_off(tmp_path, given, sizes):
    for number, part in enumerate(given):
        fill(tmp_path / part, start=100 * number)
    data, test = load_training(source(tmp_path)), load_test(source(tmp_path))
    assert (len(data.train), len(data.validation), len(test)) == sizes
    assert len({*shown(data.train), *shown(data.validation), *shown(test)}) == sum(sizes)


def test_a_class_may_be_called_train(tmp_path, monkeypatch):
    monkeypatch.setitem(COLOURS, "train", (250, 0, 0))
    fill(tmp_path, {"cat": 3, "train": 3})
    assert load_training(source(tmp_path)).classes == ("cat", "train")


def test_numbers_are_ordered_as_such_and_named_by_class_names(tmp_path):
    for number in (2, 10, 1, 0):
        for count in range(3):
            picture(tmp_path / str(number) / f"{count}.png", (number, 0, 0), count)
    assert load_training(source(tmp_path)).classes == ("0", "1", "2", "10")
    names = tuple(f"class {number}" for number in range(11))
    refused(tmp_path, "got fewer of 'class 3", class_names=names)
    (tmp_path / "10").rename(tmp_path / "03")
    data = load_training(source(tmp_path, class_names=names[:4]))
    assert data.classes == names[:4]
    assert dict(zip(data.train.images[:, 0, 0, 0].tolist(), data.train.labels.tolist(), strict=True)) == {
        2: 2,
        10: 3,
        1: 1,
        0: 0,
    }


def test_class_names_give_the_order(photos):
    data = load_training(source(photos, class_names=("owl", "cat", "dog")))
    assert data.classes == ("owl", "cat", "dog")
    assert [name for name, _ in shown(data.train)] == [data.classes[label] for label in data.train.labels]
    refused(photos, r"dog: label 'dog' is no class; expected 'cat', 'owl'", class_names=("cat", "owl"))


def test_what_file_managers_leave_is_ignored(photos):
    before = load_training(source(photos)).facts
    for name in (".DS_Store", "cat/.hidden.png", "cat/Thumbs.db", "dog/desktop.ini", "notes.txt", ".git/config"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_text("left by a file manager")
    (photos / "__MACOSX" / "cat").mkdir(parents=True)
    assert load_training(source(photos)).facts == before


def test_pictures_may_lie_deeper(photos):
    (photos / "cat" / "2024" / "may").mkdir(parents=True)
    (photos / "cat" / "3.png").rename(photos / "cat" / "2024" / "may" / "3.png")
    data, test = load_training(source(photos)), load_test(source(photos))
    assert ("cat", 3) in shown(data.train) + shown(data.validation) + shown(test)


def spoil(photos: Path, names: list[str]) -> None:
    for name in names:
        (photos / name).write_bytes(b"no picture")


def test_damaged_files_are_refused_all_at_once(photos):
    spoil(photos, [f"cat/{number}.png" for number in range(20)])
    (photos / "dog" / "3.png").write_bytes((photos / "dog" / "3.png").read_bytes()[:50])
    (photos / "owl" / "notes.txt").write_text("mine")
    with pytest.raises(DataError) as caught:
        load_training(source(photos))  # those of the test as well
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{photos}: 22 files cannot be used:"
    assert lines[1] == "  cat/0.png: not a PNG, JPEG, GIF, BMP or WebP image"
    assert lines[21:] == ["  and 2 more", 'Repair or remove them, or leave them out with on_corrupt="skip"']
    assert len(lines) == 23


def test_a_picture_too_large_is_refused_without_a_warning(photos):
    Image.new("1", (10_000, 10_000)).save(photos / "cat" / "0.png")
    refused(photos, r"cat/0.png: 10000x10000 pixels; expected at most 16 megapixels")


def test_damaged_files_are_skipped_where_asked(photos):
    before = load_test(source(photos))
    spoil(photos, ["cat/0.png", "cat/1.png", "dog/3.png"])
    (photos / "owl" / "notes.txt").write_text("mine")
    data, test = load_training(source(photos, on_corrupt="skip")), load_test(source(photos, on_corrupt="skip"))
    left = shown(data.train) + shown(data.validation) + shown(test)
    assert len(left) == len(set(left)) == 31
    assert [line.partition(":")[0] for line in data.facts["skipped"]] == [
        "cat/0.png",
        "cat/1.png",
        "dog/3.png",
        "owl/notes.txt",
    ]
    assert len(set(shown(before)) ^ set(shown(test))) <= 3  # what could not be read holds its place in the split


def test_names_that_are_no_utf8_are_readable_in_the_facts(photos, tmp_path):
    root = photos.rename(tmp_path / os.fsdecode(b"\xe9t\xe9"))
    (root / "cat" / os.fsdecode(b"p\xe8re.png")).write_bytes(b"no picture")
    (tmp_path / "summer").symlink_to(root)
    facts = load_training(source(tmp_path / "summer", on_corrupt="skip")).facts
    assert facts["source"] == r"\xe9t\xe9"
    assert facts["skipped"] == [r"cat/p\xe8re.png: not a PNG, JPEG, GIF, BMP or WebP image"]


def test_a_file_that_must_not_be_read_is_named(photos):
    (photos / "cat" / "0.png").unlink()
    (photos / "cat" / "0.png").symlink_to(photos / "gone.png")
    refused(photos, r"cat/0.png: cannot be read \(No such file or directory\)")


def test_a_test_part_without_any_picture_left(tmp_path):
    fill(tmp_path / "train", {"cat": 3, "dog": 3})
    fill(tmp_path / "test", {"cat": 1}, start=50)
    spoil(tmp_path, ["test/cat/50.png"])
    refused(tmp_path, "no test image is left", load_test, on_corrupt="skip")


def test_a_class_that_is_damaged_altogether(tmp_path):
    fill(tmp_path, {"cat": 4, "dog": 4})
    spoil(tmp_path, [f"dog/{number}.png" for number in range(4)])
    refused(tmp_path, "no training images of 'dog'", on_corrupt="skip")


def test_what_a_held_out_part_repeats_is_dropped(tmp_path):
    for start, part in ((0, "train"), (100, "val"), (200, "test")):
        fill(tmp_path / part, {"cat": 5, "dog": 3}, start)
    (tmp_path / "train" / "dog" / "again.png").write_bytes((tmp_path / "val" / "dog" / "101.png").read_bytes())
    (tmp_path / "train" / "cat" / "again.png").write_bytes((tmp_path / "test" / "cat" / "200.png").read_bytes())
    data = load_training(source(tmp_path))
    assert data.facts["dropped_duplicates"] == 2
    assert sorted(shown(data.train)) == [("cat", n) for n in range(5)] + [("dog", n) for n in range(3)]


def test_limit_reads_only_the_first(photos, monkeypatch):
    whole = load_training(source(photos))
    decoded = []
    read_photo = folder_module.read_photo
    monkeypatch.setattr(folder_module, "read_photo", lambda *given: decoded.append(1) or read_photo(*given))
    few = load_training(source(photos), limit=3)
    np.testing.assert_array_equal(few.train.images, whole.train.images[:3])
    np.testing.assert_array_equal(few.validation.images, whole.validation.images[:3])
    assert len(decoded) == 6
    assert few.facts["sha256"] == whole.facts["sha256"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda root: None, "holds no folders; expected one of pictures for each class", id="empty"),
        pytest.param(
            lambda root: picture(fill(root) / os.fsdecode(b"ch\xeane") / "0.png", (0, 0, 0), 0),
            r"class name 'ch\\udceane'; expected a name of one line in UTF-8",
            id="class that is no UTF-8",
        ),
        pytest.param(lambda root: fill(root, {"cat": 5}), "every image is of the class 'cat'", id="one class"),
        pytest.param(
            lambda root: fill(root / "photos"),
            r"holds the folder 'photos' alone; is the dataset .*/photos\?",
            id="one too high",
        ),
        pytest.param(
            lambda root: (fill(root) / "ant").mkdir(),
            "ant is empty; expected the pictures of a class",
            id="empty class",
        ),
        pytest.param(
            lambda root: fill(root, {"cat": 5, "dog": 2}),
            r"at least 3 images of every class, got fewer of 'dog \(2\)'",
            id="small class",
        ),
        pytest.param(
            lambda root: picture(fill(root) / "stray.png", (0, 0, 0), 1),
            r"'stray.png' lie in no class",
            id="stray picture",
        ),
        pytest.param(
            lambda root: (fill(root / "test"), fill(root / "val")),
            "folders 'test', 'val'; expected either train",
            id="no train",
        ),
        pytest.param(
            lambda root: (fill(root / "train"), fill(root / "extra")),
            "folders 'extra', 'train'; expected either",
            id="other folders",
        ),
        pytest.param(
            lambda root: [fill(root / part) for part in ("train", "val", "validation")],
            "expected either train",
            id="two validations",
        ),
        pytest.param(
            lambda root: (fill(root / "train"), (root / "test").mkdir()), "test holds no folders", id="empty part"
        ),
        pytest.param(
            lambda root: (fill(root / "train", {"cat": 3, "dog": 3}), fill(root / "test")),
            "test/owl: label 'owl' is no class; expected 'cat', 'dog'",
            id="class of the test alone",
        ),
    ],
)
def test_a_folder_of_another_shape(tmp_path, make, message):
    make(tmp_path)
    refused(tmp_path, message)
