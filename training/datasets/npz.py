"""Images and labels as numpy arrays in an .npz file: in parts, or to be split."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from training.datasets import digests
from training.datasets.base import DataError, Source, Split, TrainingData, light_on_dark
from training.datasets.labels import Classes, classes_of, texts
from training.datasets.splitting import content_keys, split, training_data

_TRAIN, _VALIDATION, _TEST = ("x_train", "y_train"), ("x_val", "y_val"), ("x_test", "y_test")
_TO_BE_SPLIT = (_TRAIN, ("images", "labels"), ("x", "y"))
_CLASS_NAMES = ("class_names", "classes")
_EXPECTED = "x_train, y_train and, if wanted, x_val, y_val, x_test, y_test; or images, labels; or x, y"
_BLOCK = 1_000  # images checked at a time, for the memory's sake


def load_training(source: Source, limit: int | None = None) -> TrainingData:
    """Loads an .npz. What it does not hold, validation or test, is split off class by class; the test is only hashed.

    Raises:
        DataError: the message names the array, and the index where there is one.
    """
    path = Path(source.dataset).expanduser()
    with path.open("rb") as file:
        arrays = _Arrays(path, file, source)
        parts = arrays.split()
    train, validation, test_images = parts["train"], parts["validation"], parts["test"].images
    sizes = {images.shape[1:] for images in (train.images, validation.images, test_images)}
    if len(sizes) > 1:
        raise DataError(f"{path}: images of the shapes {', '.join(map(str, sorted(sizes)))}; expected one")
    return training_data(
        train,
        validation,
        test_images,
        classes=arrays.classes.names,
        preprocessing="fashion_mnist" if train.images.shape[-1] == 1 else "colour",
        origin=path.resolve().name,
        sha256=digests.of_file(path),
        limit=limit,
    )


def load_test(source: Source) -> Split:
    """Loads the test images of an .npz: its own, or what is split off.

    Raises:
        DataError: the message names the array, and the index where there is one.
    """
    path = Path(source.dataset).expanduser()
    with path.open("rb") as file:
        arrays = _Arrays(path, file, source)
        test = arrays.test()
    return Split(light_on_dark(test.images), test.labels) if test.images.shape[-1] == 1 else test


class _Arrays:
    """The arrays of one file, each read when it is needed."""

    def __init__(self, path: Path, file: BinaryIO, source: Source) -> None:
        self.path, self.source = path, source
        try:
            arrays = np.load(file, allow_pickle=False)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is truncated or no .npz file ({error}); write it anew") from error
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise DataError(f"{path} holds a single array; expected an .npz with {_EXPECTED}")
        self._arrays = arrays
        self._main = next((pair for pair in _TO_BE_SPLIT if self.has(pair)), None)
        if self._main is None:
            raise DataError(f"{path} holds {', '.join(arrays.files) or 'no arrays'}; expected {_EXPECTED}")
        self.classes = self._classes()

    def has(self, pair: tuple[str, str]) -> bool:
        return set(pair) <= set(self._arrays.files)

    def pair(self, pair: tuple[str, str]) -> Split:
        """The images and class ids of two arrays."""
        images, labels = self._images(pair[0]), self._labels(pair[1])
        if len(images) != len(labels):
            raise DataError(
                f"{self.path}: {len(images):,} images in {pair[0]}, {len(labels):,} labels in {pair[1]}; "
                "expected a label an image"
            )
        return Split(images, self.classes.number(labels, lambda row: self._place(pair[1], row)))

    def test(self) -> Split:
        """The test images: given ones without a look at the others, or what is split off."""
        in_parts = self._main == _TRAIN and self.has(_TEST)
        return self.pair(_TEST) if in_parts else self.split()["test"]

    def split(self) -> dict[str, Split]:
        """train, validation and test."""
        main = self.pair(self._main)
        in_parts = self._main == _TRAIN
        given = {
            name: self.pair(pair)
            for name, pair in (("validation", _VALIDATION), ("test", _TEST))
            if in_parts and self.has(pair)
        }
        if len(given) == 2:
            return {"train": main, **given}
        parts = split(
            main.labels,
            self.classes.names,
            str(self.path),
            seed=self.source.split_seed,
            keys=content_keys(main.images),
            validation=None if "validation" in given else self.source.validation_fraction,
            test=None if "test" in given else self.source.test_fraction,
        )
        split_off = {
            name: Split(main.images[positions], main.labels[positions])
            for name, positions in (("train", parts.train), ("validation", parts.validation), ("test", parts.test))
        }
        return split_off | given

    def _classes(self) -> Classes:
        names = self.source.class_names
        key = next((key for key in _CLASS_NAMES if key in self._arrays.files), None)
        if names is None and key is not None:
            found = self._read(key)
            if found.ndim != 1 or found.dtype.kind not in "US":
                raise DataError(
                    f"{self.path}: {key} is {found.dtype} {found.shape}; expected the names as text, one a class"
                )
            names = tuple(self._as_text(found, key).tolist())
        return classes_of(self._labels(self._main[1]), names, f"{self.path}, {self._main[1]}")

    def _labels(self, key: str) -> np.ndarray:
        """Labels as text, str (N,)."""
        labels = self._read(key)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1:
            hint = f"; of one-hot labels store {key}.argmax(axis=1)" if labels.ndim == 2 else ""
            raise DataError(f"{self.path}: {key} has the shape {labels.shape}; expected (N,) or (N, 1){hint}")
        if labels.dtype.kind not in "biufUS":
            raise DataError(f"{self.path}: {key} is {labels.dtype}; expected whole numbers or names")
        if len(labels) == 0:
            raise DataError(f"{self.path}: {key} is empty; expected a label an image")
        labels = labels.astype(np.int64) if labels.dtype.kind == "b" else labels
        return texts(self._as_text(labels, key), lambda row: self._place(key, row))

    def _images(self, key: str) -> np.ndarray:
        """Images uint8 (N, S, S, 1 or 3)."""
        images = self._read(key)
        if images.ndim == 3:
            images = images[..., None]
        _check_shape(images.shape, f"{self.path}: {key}")
        if images.dtype.kind not in "uif":
            raise DataError(f"{self.path}: {key} is {images.dtype}; expected uint8, or numbers that are whole, 0..255")
        if images.dtype == np.uint8:
            return images
        whole = np.empty(images.shape, np.uint8)
        for start in range(0, len(images), _BLOCK):
            block = images[start : start + _BLOCK]
            fits = (block >= 0) & (block <= 255) & (block == np.floor(block))  # NaN fits nothing
            if not fits.all():
                index = tuple(np.argwhere(~fits)[0].tolist())
                shown = ", ".join(map(str, (start + index[0], *index[1:])))
                hint = " (of images in 0..1 store round(255 * x))" if 0 < block[index] < 1 else ""
                raise DataError(
                    f"{self.path}: {key}[{shown}] is {block[index]}; expected whole numbers 0..255 everywhere{hint}"
                )
            whole[start : start + len(block)] = block
        return whole

    def _read(self, key: str) -> np.ndarray:
        try:
            array = self._arrays[key]
            if not isinstance(array, np.ndarray):  # numpy gives the bytes of what is no .npy
                raise ValueError("no .npy file")
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                f"{self.path}: {key} cannot be read ({error}); expected plain numbers or text, no Python objects, whole"
            ) from error
        return array

    def _as_text(self, values: np.ndarray, key: str) -> np.ndarray:
        try:
            return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values.astype(str)
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: {key} holds bytes that are not UTF-8 ({error})") from error

    def _place(self, key: str, row: int) -> str:
        return f"{self.path}: {key}[{row}]"


def _check_shape(shape: tuple[int, ...], place: str) -> None:
    expected = "expected (N, S, S), (N, S, S, 1) or (N, S, S, 3), square"
    if len(shape) != 4:
        hint = "; reshape flat images" if len(shape) == 2 else ""
        raise DataError(f"{place} has the shape {shape}; {expected}{hint}")
    if 0 in shape:
        raise DataError(f"{place} is empty, its shape is {shape}; {expected}")
    if shape[-1] not in (1, 3):
        hint = "; move the channels to the end with transpose(0, 2, 3, 1)" if shape[1] in (1, 3) else ""
        raise DataError(f"{place} has {shape[-1]} channels, its shape is {shape}; {expected}{hint}")
    if shape[1] != shape[2]:
        raise DataError(f"{place} has the shape {shape}; {expected}. Pad or crop the images, or use a folder of images")
