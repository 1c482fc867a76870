"""Arrays in .npz files: whole or in parts, grey or colour, and everything that is refused by name and index."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from training.datasets import DataError, Source, load_test, load_training

COUNT, SIDE = 60, 4
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 128, (COUNT, SIDE, SIDE), np.uint8)  # no light ground, which would be turned
COLOUR = RNG.integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8)
LABELS = np.arange(COUNT) % 3


def write(folder: Path, **arrays) -> Source:
    np.savez(folder / "pets.npz", **arrays)
    return Source(str(folder / "pets.npz"))


def in_parts(images=COLOUR, labels=LABELS, *, without: str = "") -> dict[str, np.ndarray]:
    bounds = {"train": slice(0, 40), "val": slice(40, 48), "test": slice(48, 60)}
    arrays = {}
    for part, bound in bounds.items():
        if part not in without:
            arrays |= {f"x_{part}": images[bound], f"y_{part}": labels[bound]}
    return arrays


def refused(source: Source, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_training(source)
    assert "pets.npz" in str(caught.value)


def test_given_parts_stay_as_they_are(tmp_path):
    source = write(tmp_path, **in_parts())
    data, test = load_training(source), load_test(source)
    np.testing.assert_array_equal(data.train.images, COLOUR[:40])
    np.testing.assert_array_equal(data.validation.images, COLOUR[40:48])
    np.testing.assert_array_equal(test.images, COLOUR[48:])
    assert test.labels.tolist() == LABELS[48:].tolist()
    assert (data.preprocessing, data.classes) == ("colour", ("0", "1", "2"))
    assert data.facts["source"] == "pets.npz"
    assert data.train.labels.dtype == test.labels.dtype == np.int64


@pytest.mark.parametrize(("without", "sizes"), [("val", (37, 3, 12)), ("test", (34, 8, 6)), ("val test", (31, 3, 6))])
def test_a_part_that_is_missing_is_split_off(tmp_path, without, sizes):
    source = write(tmp_path, **in_parts(without=without))
    data, test = load_training(source), load_test(source)
    assert (len(data.train), len(data.validation), len(test)) == sizes
    together = [image.tobytes() for part in (data.train, data.validation, test) for image in part.images]
    assert len(set(together)) == sum(sizes)


@pytest.mark.parametrize("keys", [("images", "labels"), ("x", "y")])
@pytest.mark.parametrize(
    ("images", "preprocessing", "channels"),
    [(GREY, "fashion_mnist", 1), (GREY[..., None], "fashion_mnist", 1), (COLOUR, "colour", 3)],
)
def test_one_pair_is_split_in_three(tmp_path, keys, images, preprocessing, channels):
    source = write(tmp_path, **dict(zip(keys, (images, LABELS), strict=True)))
    data, test = load_training(source), load_test(source)
    assert (len(data.train), len(data.validation), len(test)) == (45, 6, 9)
    assert data.train.images.shape[1:] == test.images.shape[1:] == (SIDE, SIDE, channels)
    assert data.preprocessing == preprocessing
    known = {image.tobytes(): label for image, label in zip(images, LABELS, strict=True)}
    for part in (data.train, data.validation, test):
        assert [known.pop(image.tobytes()) for image in part.images] == part.labels.tolist()


@pytest.mark.parametrize("without", ["val test", "test"])
def test_the_split_hangs_on_the_pixels_not_on_the_row(tmp_path, without):
    source = write(tmp_path, **in_parts(without=without))
    before = {image.tobytes() for image in load_test(source).images}
    arrays = in_parts(without=without)
    write(tmp_path, **arrays | {"x_train": arrays["x_train"][1:], "y_train": arrays["y_train"][1:]})
    assert len({image.tobytes() for image in load_test(source).images} - before) <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint16])
def test_whole_numbers_of_any_type_are_taken(tmp_path, dtype):
    data = load_training(write(tmp_path, **in_parts(COLOUR.astype(dtype))))
    assert data.train.images.dtype == np.uint8
    np.testing.assert_array_equal(data.train.images, COLOUR[:40])


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (LABELS[:, None], ("0", "1", "2")),
        (LABELS.astype(np.float32), ("0", "1", "2")),
        (LABELS > 0, ("0", "1")),
        (np.array(["owl", "cat", "dög"])[LABELS], ("cat", "dög", "owl")),
        (np.char.encode(np.array(["owl", "cat", "dög"]), "utf-8")[LABELS], ("cat", "dög", "owl")),
    ],
)
def test_labels_of_any_type(tmp_path, labels, classes):
    assert load_training(write(tmp_path, images=COLOUR, labels=labels)).classes == classes


@pytest.mark.parametrize("key", ["class_names", "classes"])
def test_names_in_the_file(tmp_path, key):
    source = write(tmp_path, **in_parts(), **{key: np.array(["cat", "dog", "owl"])})
    assert load_training(source).classes == ("cat", "dog", "owl")


def test_names_that_are_asked_for_win(tmp_path):
    source = write(tmp_path, **in_parts(), class_names=np.array(["cat", "dog", "owl"]))
    assert load_training(Source(source.dataset, class_names=("a", "b", "c"))).classes == ("a", "b", "c")


def test_what_the_test_repeats_is_dropped(tmp_path):
    images = COLOUR.copy()
    images[2], images[5] = images[50], images[41]
    data = load_training(write(tmp_path, **in_parts(images)))
    assert data.facts["dropped_duplicates"] == 2
    np.testing.assert_array_equal(data.train.images, np.delete(images[:40], [2, 5], axis=0))


def changed(value, dtype=np.float32) -> np.ndarray:
    images = COLOUR.astype(dtype)
    images[17, 2, 3, 1] = value
    return images


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (changed(np.nan), r"images\[17, 2, 3, 1\] is nan; expected whole numbers 0..255"),
        (changed(np.inf), r"images\[17, 2, 3, 1\] is inf"),
        (changed(256), r"images\[17, 2, 3, 1\] is 256.0"),
        (changed(-1, np.int16), r"images\[17, 2, 3, 1\] is -1"),
        (changed(7.5), r"images\[17, 2, 3, 1\] is 7.5"),
        (COLOUR / 255.0, r"of images in 0..1 store round\(255 \* x\)"),
        (COLOUR > 5, "images is bool"),
        (COLOUR.astype(complex), "images is complex128"),
        (COLOUR.transpose(0, 3, 1, 2), r"has 4 channels.*move the channels to the end"),
        (COLOUR[..., :2], r"has 2 channels, its shape is \(60, 4, 4, 2\)"),
        (COLOUR[:, :3], r"has the shape \(60, 3, 4, 3\); expected.*square"),
        (COLOUR.reshape(COUNT, -1), r"has the shape \(60, 48\).*reshape flat images"),
        (COLOUR[..., None], r"has the shape \(60, 4, 4, 3, 1\)"),
        (COLOUR[:0], r"is empty, its shape is \(0, 4, 4, 3\)"),
        (COLOUR[:50], "50 images in images, 60 labels in labels; expected a label an image"),
        (COLOUR.astype(object), "images cannot be read .*Python objects"),
    ],
)
def test_images_that_are_none(tmp_path, images, message):
    refused(write(tmp_path, images=images, labels=LABELS), message)


def label(value, dtype=np.int64) -> np.ndarray:
    labels = LABELS.astype(dtype)
    labels[17] = value
    return labels


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (label(-1), r"labels\[17\]: label '-1'; expected a name or a whole number"),
        (label(np.nan, np.float32), r"labels\[17\]: label 'nan'"),
        (label(0.5, np.float32), r"labels\[17\]: label '0.5'"),
        (label("", "U3"), r"labels\[17\]: label ''"),
        (np.eye(3)[LABELS], r"shape \(60, 3\).*store labels.argmax\(axis=1\)"),
        (LABELS[:0], "labels is empty"),
        (LABELS.astype(complex), "labels is complex128"),
        (LABELS.astype(object), "labels cannot be read .*Python objects"),
        (np.zeros(COUNT, int), "every image is of the class '0'"),
        (np.where(np.arange(COUNT) < 2, 1, 0), r"at least 3 images of every class, got fewer of '1 \(2\)'"),
        (np.array([b"\xff", b"a", b"b"])[LABELS], "labels holds bytes that are not UTF-8"),
    ],
)
def test_labels_that_are_none(tmp_path, labels, message):
    refused(write(tmp_path, images=COLOUR, labels=labels), message)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (np.array(["cat", "dog"]), r"labels\[2\]: label '2' is no class; expected '0', '1'"),
        (np.array(["cat", "dog", "owl", "ant"]), r"at least 3 images of every class, got fewer of 'ant \(0\)'"),
        (np.array([1, 2, 3]), "class_names is int64.*expected the names as text"),
        (np.array(["cat", "cat", "owl"]), "class names 'cat' occur twice"),
    ],
)
def test_class_names_that_do_not_fit(tmp_path, names, message):
    refused(write(tmp_path, images=COLOUR, labels=LABELS, class_names=names), message)


def test_a_class_that_only_the_test_knows(tmp_path):
    arrays = in_parts()
    arrays["y_test"] = arrays["y_test"] + 5
    source = write(tmp_path, **arrays)
    with pytest.raises(DataError, match=r"y_test\[0\]: label '.' is no class"):
        load_test(source)


def test_parts_of_different_sizes(tmp_path):
    refused(
        write(tmp_path, **in_parts() | {"x_test": COLOUR[:12, :3, :3]}),
        r"shapes \(3, 3, 3\), \(4, 4, 3\); expected one",
    )


@pytest.mark.parametrize("keys", [("x_train", "labels"), ("a", "b"), ("x_test", "y_test")])
def test_other_keys_are_listed(tmp_path, keys):
    refused(
        write(tmp_path, **dict(zip(keys, (COLOUR, LABELS), strict=True))),
        rf"holds {keys[0]}, {keys[1]}; expected x_train",
    )


def array_alone() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, GREY)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda whole: whole[:-30], "truncated or no .npz file"),
        (lambda whole: b"", "truncated or no .npz file"),
        (lambda whole: b"PK text", "truncated or no .npz file"),
        (lambda whole: array_alone(), "a single array"),
        (lambda whole: whole[:300] + bytes(100) + whole[400:], "images cannot be read"),
    ],
)
def test_a_broken_file(tmp_path, content, message):
    source = write(tmp_path, images=COLOUR, labels=LABELS)
    path = Path(source.dataset)
    path.write_bytes(content(path.read_bytes()))
    refused(source, message)


@pytest.mark.parametrize("key", ["images", "labels"])
def test_a_member_that_is_no_array(tmp_path, key):
    source = write(tmp_path, **{"images": COLOUR, "labels": LABELS, key: LABELS})
    with zipfile.ZipFile(source.dataset, "w") as archive:
        for name, array in (("images", COLOUR), ("labels", LABELS)):
            with archive.open(f"{name}.npy", "w") as member:
                member.write(b"some text") if name == key else np.save(member, array)
    refused(source, f"{key} cannot be read .no .npy file.; expected plain numbers or text")


def test_grey_images_on_a_light_ground_are_turned_in_every_part(tmp_path):
    source = write(tmp_path, **in_parts(255 - GREY))
    data = load_training(source)
    for part, bound in (
        (data.train, slice(0, 40)),
        (data.validation, slice(40, 48)),
        (load_test(source), slice(48, 60)),
    ):
        np.testing.assert_array_equal(part.images[..., 0], GREY[bound])
