"""CIFAR-10's files in each of their four forms, small ones of the same format, and pickles that are something else."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest

from training.datasets import DataError, Source, cifar10, load_test, load_training

BATCH_SIZE = 40
NAMES = (*cifar10.TRAIN, *cifar10.TEST)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(cifar10, "BATCH_SIZE", BATCH_SIZE)
    monkeypatch.delenv("CIFAR10_DIR", raising=False)


@pytest.fixture(scope="module")
def batches() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pixels uint8 (40, 3072), plane by plane, and labels; the first training image is a test image as well."""
    rng = np.random.default_rng(0)
    made = {name: (rng.integers(0, 256, (BATCH_SIZE, 3072), np.uint8), np.arange(BATCH_SIZE) % 10) for name in NAMES}
    made["data_batch_1"][0][0] = made["test_batch"][0][7]
    return made


def python_files(batches) -> dict[str, bytes]:
    return {
        name: pickle.dumps({b"data": pixels, b"labels": labels.tolist(), b"batch_label": b"a batch"}, protocol=2)
        for name, (pixels, labels) in batches.items()
    }


def binary_files(batches) -> dict[str, bytes]:
    return {
        f"{name}.bin": np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1).tobytes()
        for name, (pixels, labels) in batches.items()
    }


def in_folder(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def in_archive(path: Path, files: dict[str, bytes], folder: str = "cifar-10-batches") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


FORMS = {
    "python": lambda root, batches: in_folder(root, python_files(batches)),
    "python, folder above": lambda root, batches: in_folder(root / "cifar-10-batches-py", python_files(batches)).parent,
    "binary": lambda root, batches: in_folder(root, binary_files(batches)),
    "binary, folder above": lambda root, batches: (
        in_folder(root / "cifar-10-batches-bin", binary_files(batches)).parent
    ),
    "python archive": lambda root, batches: in_archive(root / "mine.tar.gz", python_files(batches)),
    "python archive, folder": lambda root, batches: (
        in_archive(root / "cifar-10-python.tar.gz", python_files(batches)).parent
    ),
    "binary archive": lambda root, batches: in_archive(root / "cifar-10-binary.tar.gz", binary_files(batches)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(tmp_path, batches, form):
    source = Source("cifar10", str(FORMS[form](tmp_path, batches)))
    data, test = load_training(source), load_test(source)
    assert (data.preprocessing, data.classes[0], data.classes[-1]) == ("colour", "airplane", "truck")
    assert np.bincount(data.validation.labels).tolist() == [2] * 10
    assert len(data.train) == 5 * BATCH_SIZE - 20 - data.facts["dropped_duplicates"]
    assert test.images.shape == (BATCH_SIZE, 32, 32, 3)
    assert (test.images.dtype, test.labels.dtype) == (np.uint8, np.int64)
    red, green, blue = batches["test_batch"][0][0].reshape(3, 32, 32)
    np.testing.assert_array_equal(test.images[0], np.stack([red, green, blue], axis=-1))
    assert test.labels.tolist() == batches["test_batch"][1].tolist()
    reference = load_training(Source("cifar10", str(in_folder(tmp_path / "reference", binary_files(batches)))))
    assert data.facts == reference.facts
    np.testing.assert_array_equal(data.train.images, reference.train.images)


def test_what_the_test_set_repeats_is_dropped(tmp_path, batches):
    source = Source("cifar10", str(in_folder(tmp_path, binary_files(batches))))
    data = load_training(source)
    tested = {image.tobytes() for image in load_test(source).images}
    assert not tested & {image.tobytes() for image in data.train.images}


def test_the_environment_says_where(tmp_path, batches, monkeypatch):
    monkeypatch.setenv("CIFAR10_DIR", str(in_folder(tmp_path, binary_files(batches))))
    assert len(load_test(Source("cifar10"))) == BATCH_SIZE


def test_python_2s_own_pickle():
    """Bytes as Python 2 and its numpy wrote them: text without an encoding, and numpy's functions under old names."""
    written = (
        b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06K\x09eU\x04dataq\x04cnumpy.core.multiarray\n_reconstruct\nq\x05"
        b"cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87R"
        b"q\x09(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06\x01\x02\x03\xfd\xfe\xfftbu."
    )
    values = cifar10._Unpickler(io.BytesIO(written), encoding="bytes").load()
    assert values[b"labels"] == [6, 9]
    assert values[b"data"].array.tolist() == [[1, 2, 3], [253, 254, 255]]


class Harmful:
    """Unpickled by pickle, makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_runs_nothing(tmp_path, batches):
    files = python_files(batches) | {"test_batch": pickle.dumps({b"data": Harmful(tmp_path / "made")}, protocol=2)}
    root = in_folder(tmp_path / "files", files)
    with pytest.raises(DataError, match=r"test_batch is no batch of CIFAR-10 .*it calls posix.mkdir"):
        load_test(Source("cifar10", str(root)))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([1, 2], id="a list"),
        pytest.param({b"labels": [0]}, id="no data"),
        pytest.param({b"data": np.zeros((BATCH_SIZE, 3072), np.float32), b"labels": [0] * BATCH_SIZE}, id="floats"),
        pytest.param({b"data": np.array([{}], object), b"labels": [0]}, id="objects"),
        pytest.param({b"data": b"text", b"labels": [0]}, id="text"),
        pytest.param({b"data": np.zeros((BATCH_SIZE, 3072), np.uint8), b"labels": ["cat"] * BATCH_SIZE}, id="names"),
    ],
)
def test_a_pickle_of_something_else(tmp_path, batches, values):
    files = python_files(batches) | {"test_batch": pickle.dumps(values, protocol=2)}
    with pytest.raises(DataError, match=r"test_batch is no batch of CIFAR-10.*Fetch it again"):
        load_test(Source("cifar10", str(in_folder(tmp_path, files))))


@pytest.mark.parametrize("cut", [0, 1, 100, 1_000, -1])
def test_a_truncated_pickle(tmp_path, batches, cut):
    files = python_files(batches)
    files["test_batch"] = files["test_batch"][:cut]
    with pytest.raises(DataError, match="test_batch is no batch of CIFAR-10"):
        load_test(Source("cifar10", str(in_folder(tmp_path, files))))


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((BATCH_SIZE - 1, 3072), [0] * (BATCH_SIZE - 1), r"data of shape \(39, 3072\).*expected \(40, 3072\)"),
        ((BATCH_SIZE, 784), [0] * BATCH_SIZE, r"data of shape \(40, 784\)"),
        ((BATCH_SIZE, 3072), [0], r"and \(1,\) labels"),
        ((BATCH_SIZE, 3072), [0] * (BATCH_SIZE - 1) + [10], r"labels 0..10; expected 0..9"),
        ((BATCH_SIZE, 3072), [0] * (BATCH_SIZE - 1) + [-1], r"labels -1..0; expected 0..9"),
    ],
)
def test_another_dataset_of_the_same_format(tmp_path, batches, shape, labels, message):
    other = pickle.dumps({b"data": np.zeros(shape, np.uint8), b"labels": labels}, protocol=2)
    root = in_folder(tmp_path, python_files(batches) | {"test_batch": other})
    with pytest.raises(DataError, match=message):
        load_test(Source("cifar10", str(root)))


def test_a_truncated_binary_file(tmp_path, batches):
    files = binary_files(batches)
    files["data_batch_3.bin"] = files["data_batch_3.bin"][:-1]
    with pytest.raises(DataError, match=r"data_batch_3.bin has 122,919 bytes; expected 122,920, 40 images"):
        load_training(Source("cifar10", str(in_folder(tmp_path, files))))


@pytest.mark.parametrize("pack", [in_folder, lambda root, files: in_archive(root / "cifar-10-binary.tar.gz", files)])
def test_a_missing_batch_is_named(tmp_path, batches, pack):
    files = {name: content for name, content in binary_files(batches).items() if "4" not in name}
    with pytest.raises(DataError, match="neither data_batch_4 nor data_batch_4.bin is in"):
        load_training(Source("cifar10", str(pack(tmp_path, files))))


@pytest.mark.parametrize(
    "spoil", [lambda packed: packed[: len(packed) // 2], lambda packed: b"no archive", lambda packed: b""]
)
def test_a_broken_archive(tmp_path, batches, spoil):
    path = in_archive(tmp_path / "cifar-10-binary.tar.gz", binary_files(batches))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz is truncated or no tar archive"):
        load_training(Source("cifar10", str(path)))


def test_a_link_in_an_archive_is_not_followed(tmp_path):
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    with pytest.raises(DataError, match="neither test_batch nor test_batch.bin is in"):
        load_test(Source("cifar10", str(path)))


def test_a_member_too_large_is_not_unpacked(tmp_path, batches, monkeypatch):
    monkeypatch.setattr(cifar10, "_LARGEST", 1_000)
    path = in_archive(tmp_path / "cifar-10-binary.tar.gz", binary_files(batches))
    with pytest.raises(DataError, match=r"has 122,920 bytes; this is not CIFAR-10"):
        load_training(Source("cifar10", str(path)))


@pytest.mark.parametrize("missing", [True, False])
def test_a_place_without_its_files(tmp_path, missing):
    place = tmp_path / "nowhere" if missing else tmp_path
    with pytest.raises(DataError, match=r"expected one of cifar-10-batches-py, .*cifar-10-binary.tar.gz"):
        load_training(Source("cifar10", str(place)))


def test_without_a_place_keras_loads(monkeypatch, batches):
    def keras_shape(names):
        pixels, labels = (np.concatenate([batches[name][part] for name in names]) for part in (0, 1))
        return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels[:, None]

    loaded = keras_shape(cifar10.TRAIN), keras_shape(cifar10.TEST)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: loaded)
    data, test = load_training(Source("cifar10")), load_test(Source("cifar10"))
    assert len(data.validation) == 20
    np.testing.assert_array_equal(test.images, loaded[1][0])
    assert test.labels.tolist() == batches["test_batch"][1].tolist()


def test_a_failed_download_names_the_ways_on(monkeypatch):
    def fail():
        raise Exception("URL fetch failure")  # as Keras does

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", fail)
    with pytest.raises(DataError, match=r"URL fetch failure.*--data-dir or CIFAR10_DIR.*cs.toronto.edu"):
        load_training(Source("cifar10"))
