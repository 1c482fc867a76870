"""Finding, verifying and splitting Fashion-MNIST, on small file sets of the same format and on the real one."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import keras
import numpy as np
import pytest

from training.datasets import DataError, Source, fashion_mnist, load_test, load_training
from training.datasets.fashion_mnist import find

TRAIN, TEST, VALIDATION = 30, 10, 5


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def contents(monkeypatch) -> dict[str, bytes]:
    """Four small IDX files whose checksums the module expects; training image 3 is test image 7 as well."""
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, 28, 28), np.uint8) for n in (TRAIN, TEST))
    train[3] = test[7]
    files = {
        "train-images-idx3-ubyte": idx(train),
        "train-labels-idx1-ubyte": idx(np.arange(TRAIN, dtype=np.uint8) % 10),
        "t10k-images-idx3-ubyte": idx(test),
        "t10k-labels-idx1-ubyte": idx(np.arange(TEST, dtype=np.uint8)),
    }
    monkeypatch.setattr(fashion_mnist, "_FILES", {name: hashlib.sha256(c).hexdigest() for name, c in files.items()})
    monkeypatch.setattr(fashion_mnist, "VALIDATION_SIZE", VALIDATION)
    return files


def write(directory: Path, contents: dict[str, bytes], *, packed: bool = False) -> Path:
    directory.mkdir(exist_ok=True)
    for name, content in contents.items():
        if packed:
            (directory / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (directory / name).write_bytes(content)
    return directory


def source(directory: Path) -> Source:
    return Source(data_dir=str(directory))


@pytest.mark.parametrize("packed", [False, True])
def test_files_are_read_packed_or_raw(tmp_path, contents, packed):
    root = write(tmp_path / "files", contents, packed=packed)
    test = load_test(source(root))
    assert test.images.shape == (TEST, 28, 28, 1)
    assert (test.images.dtype, test.labels.dtype) == (np.uint8, np.int64)
    assert test.labels.tolist() == list(range(TEST))
    assert len(load_training(source(root)).validation) == VALIDATION


def test_order_of_search(tmp_path, monkeypatch):
    given, from_environment, debian = (tmp_path / name for name in ("given", "environment", "debian"))
    for directory in (given, from_environment, debian):
        directory.mkdir()
    monkeypatch.setattr(fashion_mnist, "DEBIAN_DIR", debian)
    monkeypatch.setattr(fashion_mnist, "_download", lambda: tmp_path / "downloaded")
    monkeypatch.setenv("FASHION_MNIST_DIR", str(from_environment))
    assert find(given) == given
    assert find() == from_environment
    monkeypatch.delenv("FASHION_MNIST_DIR")
    assert find() == debian
    debian.rmdir()
    assert find() == tmp_path / "downloaded"


def test_a_given_directory_that_is_missing_is_not_passed_over(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="nowhere is not a directory"):
        find(tmp_path / "nowhere")
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match="elsewhere is not a directory"):
        find()


def test_a_failed_download_names_the_ways_on(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise Exception("URL fetch failure")  # as Keras does

    monkeypatch.setattr(fashion_mnist, "DEBIAN_DIR", tmp_path / "none")
    monkeypatch.delenv("FASHION_MNIST_DIR", raising=False)
    monkeypatch.setattr(keras.utils, "get_file", fail)
    with pytest.raises(DataError, match=r"URL fetch failure.*--data-dir or FASHION_MNIST_DIR.*apt-get install"):
        find()


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_a_missing_file_is_named(tmp_path, contents, name):
    root = write(tmp_path / "files", {k: v for k, v in contents.items() if k != name})
    with pytest.raises(DataError, match=f"neither {name} nor {name}.gz is in"):
        load_training(source(root))


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda content: content[:-1], id="truncated"),
        pytest.param(lambda content: content[:-1] + bytes([content[-1] ^ 1]), id="one bit"),
        pytest.param(lambda content: b"", id="empty"),
    ],
)
def test_a_changed_file_is_refused_by_name(tmp_path, contents, spoil):
    name = "train-images-idx3-ubyte"
    root = write(tmp_path / "files", contents | {name: spoil(contents[name])})
    with pytest.raises(DataError, match=rf"files/{name} is not Fashion-MNIST's"):
        load_training(source(root))


@pytest.mark.parametrize("spoil", [lambda packed: packed[:-20], lambda packed: b"not gzip", lambda packed: b""])
def test_a_broken_archive_is_refused_by_name(tmp_path, contents, spoil):
    root = write(tmp_path / "files", contents, packed=True)
    path = root / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte.gz"):
        load_test(source(root))


def test_another_dataset_of_the_same_format_is_refused(tmp_path, contents, monkeypatch):
    root = write(tmp_path / "files", contents)
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.*another dataset"):
        load_training(source(root))


def test_what_the_test_set_repeats_is_dropped_from_training(tmp_path, contents):
    loaded = load_training(source(write(tmp_path / "files", contents)))
    assert loaded.facts["dropped_duplicates"] == 1
    assert loaded.train.labels.tolist() == [n % 10 for n in range(TRAIN - VALIDATION) if n != 3]
    test = {image.tobytes() for image in load_test(source(tmp_path / "files")).images}
    assert not test & {image.tobytes() for image in loaded.train.images}


def test_limit_cuts_every_split(tmp_path, contents):
    loaded = load_training(source(write(tmp_path / "files", contents)), limit=4)
    assert (len(loaded.train), len(loaded.validation)) == (4, 4)


def test_the_real_split():
    loaded = load_training(Source())
    assert len(loaded.validation) == 5_000
    assert len(loaded.train) + loaded.facts["dropped_duplicates"] == 55_000
    assert loaded.facts["dropped_duplicates"] == 0  # the original files repeat none of their images
    assert np.bincount(loaded.validation.labels).min() > 400
    assert loaded.preprocessing == "fashion_mnist"
    assert loaded.train.images.shape == (55_000, 28, 28, 1)
    assert loaded.facts["counts"]["validation"] == dict(
        zip(fashion_mnist.CLASSES, np.bincount(loaded.validation.labels).tolist(), strict=True)
    )
