"""CIFAR-10 as numpy arrays: from its Python or binary files, unpacked or in their archive, or through Keras' download.

Files: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets import digests
from training.datasets.base import DataError, Source, Split, TrainingData
from training.datasets.splitting import split, training_data

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = ("test_batch",)
SPLIT_SETTINGS = ("split_seed", "validation_fraction")
BATCH_SIZE = 10_000  # images a file
_PIXELS = 3 * 32 * 32
_FOLDERS = ("", "cifar-10-batches-py", "cifar-10-batches-bin")
_ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz")
_EXPECTED = f"one of {', '.join(filter(None, _FOLDERS))}, {', '.join(_ARCHIVES)}"
_LARGEST = 64 * 2**20  # bytes; the files have 31 million
_DAMAGED = (tarfile.TarError, EOFError, OSError, zlib.error)
# what unpickling, and looking into what came of it, raises on other content than expected
_UNPICKLABLE = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
    MemoryError,
)  # fmt: skip


def load_training(source: Source, limit: int | None = None) -> TrainingData:
    """Loads the five training batches; of every class a part validates, as the source says.

    Args:
        source: its data_dir is the folder of the files, or the archive; None: CIFAR10_DIR, or Keras' download.
        limit: keep only the first `limit` training and validation images.

    Raises:
        DataError: a file is missing, truncated or foreign.
    """
    data, test = _load(source, TRAIN, TEST)
    seed, fraction = source.split_seed, source.validation_fraction
    parts = split(data.labels, CLASSES, "cifar10", seed=seed, validation=fraction, test=None)
    return training_data(
        *(Split(data.images[part], data.labels[part]) for part in (parts.train, parts.validation)),
        test.images,
        classes=CLASSES,
        preprocessing="colour",
        origin="cifar10",
        sha256=digests.of_arrays(data.images, data.labels, test.images, test.labels),
        limit=limit,
    )


def load_test(source: Source) -> Split:
    """Loads the 10,000 official test images. To be read once, at the end."""
    (test,) = _load(source, TEST)
    return test


def _load(source: Source, *parts: Sequence[str]) -> list[Split]:
    """What the files named in each part hold together."""
    given = source.data_dir or os.environ.get("CIFAR10_DIR")
    if not given:
        train, test = _download()
        return [test if part is TEST else train for part in parts]
    place = _find(Path(given).expanduser())
    names = [name for part in parts for name in part]
    files = _from_archive(place, names) if place.is_file() else _from_folder(place, names)
    batches = {}
    for name in names:
        found = next((file for file in (name, f"{name}.bin") if file in files), None)
        if found is None:
            raise DataError(f"CIFAR-10: neither {name} nor {name}.bin is in {place}; fetch the dataset again")
        read = _from_binary if found.endswith(".bin") else _from_pickle
        batches[name] = read(files[found], f"{place}/{found}")
    return [
        Split(*(np.concatenate([getattr(batches[name], array) for name in part]) for array in ("images", "labels")))
        for part in parts
    ]


def _find(given: Path) -> Path:
    """The archive, or the folder of the files themselves, at or in what was given."""
    if given.is_file():
        return given
    for folder in _FOLDERS:
        if any((given / folder / f"{TEST[0]}{suffix}").is_file() for suffix in ("", ".bin")):
            return given / folder
    for archive in _ARCHIVES:
        if (given / archive).is_file():
            return given / archive
    raise DataError(f"CIFAR-10: {given} {'holds' if given.is_dir() else 'is'} none of its files; expected {_EXPECTED}")


def _from_folder(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    paths = (folder / f"{name}{suffix}" for name in names for suffix in ("", ".bin"))
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def _from_archive(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """The files' content, read from the archive where it lies: nothing is unpacked to the disk."""
    wanted = {f"{name}{suffix}" for name in names for suffix in ("", ".bin")}
    files = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                if member.isreg() and name in wanted:
                    if member.size > _LARGEST:
                        raise DataError(f"{archive}: {member.name} has {member.size:,} bytes; this is not CIFAR-10")
                    files[name] = tar.extractfile(member).read()
    except _DAMAGED as error:
        raise DataError(f"{archive} is truncated or no tar archive ({error}); expected {_EXPECTED}") from error
    return files


def _from_binary(content: bytes, origin: str) -> Split:
    record = 1 + _PIXELS
    if len(content) != BATCH_SIZE * record:
        raise DataError(
            f"{origin} has {len(content):,} bytes; expected {BATCH_SIZE * record:,}, {BATCH_SIZE:,} images. "
            "It is truncated or another dataset; fetch it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    return _batch(records[:, 1:], records[:, 0], origin)


def _from_pickle(content: bytes, origin: str) -> Split:
    try:
        values = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        values = {key.decode() if isinstance(key, bytes) else key: value for key, value in values.items()}
        pixels, labels = values["data"].array, np.array(values["labels"], np.int64)
    except _UNPICKLABLE as error:
        raise DataError(
            f"{origin} is no batch of CIFAR-10 ({type(error).__name__}: {error}); "
            "expected a pickle of data and labels. Fetch it again"
        ) from error
    return _batch(pixels, labels, origin)


def _batch(pixels: np.ndarray, labels: np.ndarray, origin: str) -> Split:
    if pixels.shape != (BATCH_SIZE, _PIXELS) or labels.shape != (BATCH_SIZE,):
        raise DataError(
            f"{origin} holds data of shape {pixels.shape} and {labels.shape} labels; "
            f"expected {(BATCH_SIZE, _PIXELS)} and {(BATCH_SIZE,)}. It is another dataset; fetch it again"
        )
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise DataError(f"{origin} has labels {labels.min()}..{labels.max()}; expected 0..9. Fetch it again")
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), labels.astype(np.int64))


class _Array:
    """What a pickled uint8 array becomes, in `array`; nothing of numpy's own unpickling is run."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("expected an array of bytes")
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Dtype:
    def __init__(self, name: str | bytes, *_: object) -> None:
        if name not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"expected an array of bytes, got dtype {name!r}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        pass  # byte order and alignment, of which single bytes have none


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _encode(text: str, _: object) -> bytes:
    return text.encode("latin-1")  # how Python 3 writes bytes in Python 2's protocol


_GLOBALS: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    """Reads containers, numbers, text and arrays of bytes. A pickle can name any function to be called: none is."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which no batch of CIFAR-10 does") from None


def _download() -> tuple[Split, Split]:
    import keras  # only here: reading files must not load a framework

    try:
        train, test = keras.datasets.cifar10.load_data()
    except Exception as error:  # get_file raises bare Exception when it cannot download
        raise DataError(
            f"CIFAR-10 is not here and could not be downloaded ({error}). Give its folder or archive with --data-dir "
            f"or CIFAR10_DIR: {_EXPECTED}, from https://www.cs.toronto.edu/~kriz/cifar.html"
        ) from error
    return tuple(Split(images, labels.reshape(-1).astype(np.int64)) for images, labels in (train, test))
