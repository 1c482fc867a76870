"""Fashion-MNIST as numpy arrays: found, verified, split, and freed of images that the test set repeats."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

import numpy as np

from training.datasets import digests
from training.datasets.base import DataError, Source, Split, TrainingData
from training.datasets.splitting import training_data

SPLIT_SETTINGS = ()
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
DEBIAN_DIR = Path("/usr/share/datasets/fashion-mnist")
VALIDATION_SIZE = 5_000
DOWNLOAD = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"

# SHA-256 of the files' unpacked content, so that a file packed anew (as Debian does) is the same file.
_FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def load_training(source: Source, limit: int | None = None) -> TrainingData:
    """Loads the training file: its last 5,000 images are the validation split, the rest trains.

    Of the test set only the hashes of its images are looked at, to drop training images that repeat one.

    Args:
        source: its data_dir holds the four IDX files (.gz or not); None searches as `find` says.
        limit: keep only the first `limit` training and validation images.

    Raises:
        DataError: a file is missing, truncated or foreign.
    """
    root = find(source.data_dir)
    images, labels = _read_images(root, "train-images-idx3-ubyte"), _read_labels(root, "train-labels-idx1-ubyte")
    return training_data(
        Split(images[:-VALIDATION_SIZE], labels[:-VALIDATION_SIZE]),
        Split(images[-VALIDATION_SIZE:], labels[-VALIDATION_SIZE:]),
        _read_images(root, "t10k-images-idx3-ubyte"),
        classes=CLASSES,
        preprocessing="fashion_mnist",
        origin="fashion_mnist",
        sha256=digests.of_many(_FILES),
        limit=limit,
    )


def load_test(source: Source) -> Split:
    """Loads the 10,000 official test images. To be read once, at the end."""
    root = find(source.data_dir)
    return Split(_read_images(root, "t10k-images-idx3-ubyte"), _read_labels(root, "t10k-labels-idx1-ubyte"))


def find(directory: str | os.PathLike[str] | None = None) -> Path:
    """Finds the directory of the IDX files: the one given, FASHION_MNIST_DIR, Debian's package, Keras' download."""
    given = directory or os.environ.get("FASHION_MNIST_DIR")
    if given:
        root = Path(given)
        if not root.is_dir():
            raise DataError(
                f"Fashion-MNIST: {root} is not a directory; expected one with {', '.join(_FILES)} (.gz or not)"
            )
        return root
    if DEBIAN_DIR.is_dir():
        return DEBIAN_DIR
    return _download()


def _download() -> Path:
    import keras  # only here: reading files must not load a framework

    path = Path()
    try:
        for name in _FILES:
            path = Path(
                keras.utils.get_file(f"{name}.gz", DOWNLOAD + f"{name}.gz", cache_subdir="datasets/fashion-mnist")
            )
    except Exception as error:  # get_file raises bare Exception when it cannot download
        raise DataError(
            f"Fashion-MNIST is not here and could not be downloaded ({error}). Give its directory with --data-dir or "
            "FASHION_MNIST_DIR, or install Debian's package: apt-get install dataset-fashion-mnist"
        ) from error
    return path.parent


def _read_file(root: Path, name: str) -> bytes:
    path = next((p for p in (root / name, root / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise DataError(f"Fashion-MNIST: neither {name} nor {name}.gz is in {root}")
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{path} is truncated or no gzip file ({error}); fetch it again") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != _FILES[name]:
        raise DataError(
            f"{path} is not Fashion-MNIST's {name}: expected SHA-256 {_FILES[name]} of the unpacked file, "
            f"got {digest} ({len(content)} bytes). It is truncated or another dataset; fetch it again."
        )
    return content


def _read_images(root: Path, name: str) -> np.ndarray:
    return np.frombuffer(_read_file(root, name), np.uint8, offset=16).reshape(-1, 28, 28, 1)


def _read_labels(root: Path, name: str) -> np.ndarray:
    return np.frombuffer(_read_file(root, name), np.uint8, offset=8).astype(np.int64)
