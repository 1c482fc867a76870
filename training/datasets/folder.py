"""A folder of pictures, with a folder a class, as arrays: listed, split by name, read in parallel, faults collected.

Either FOLDER/CLASS/*.jpg, or FOLDER/train/CLASS/*.jpg with validation (or val) and test beside train. What is missing
of these two is split off class by class.
"""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from training.datasets import digests
from training.datasets.base import DataError, Source, Split, TrainingData
from training.datasets.labels import Classes, classes_of, listed
from training.datasets.photos import SUFFIXES, PhotoError, read_photo
from training.datasets.splitting import check_every_class_trains, facts_of, order, split

PARTS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}  # by the folder's name
_IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}
_LISTED = 20  # files in a message


@dataclass(frozen=True)
class _File:
    path: Path
    name: str  # below the dataset's folder, with /
    label: int


@dataclass(frozen=True)
class _Read:
    """What became of some files."""

    split: Split  # those that could be read
    digests: tuple[str, ...]  # SHA-256 of each of `split`
    all_digests: dict[str, str]  # by name
    problems: tuple[str, ...]  # "name: reason"


def load_training(source: Source, limit: int | None = None) -> TrainingData:
    """Reads the pictures that train and validate. Those of the test are hashed, and looked at only for damage.

    Args:
        source: its dataset is the folder.
        limit: read at most so many training and validation pictures; the test's are not looked at then.

    Raises:
        DataError: the folder is not as described, or pictures are damaged and on_corrupt is "refuse".
    """
    root = Path(source.dataset).expanduser()
    classes, parts = _parts(root, source)
    size = source.image_size
    train = _read(parts["train"], size, "train", kept=limit, decoded=limit)
    validation = _read(parts["validation"], size, "validation", kept=limit, decoded=limit)
    test = _read(parts["test"], size, "test", kept=0, decoded=limit and 0)
    problems = sorted(train.problems + validation.problems + test.problems)
    _accept(root, source, problems)
    held_out = set((validation.all_digests | test.all_digests).values())
    keep = np.array([digest not in held_out for digest in train.digests], bool)
    kept = train.split if keep.all() else Split(train.split.images[keep], train.split.labels[keep])
    for part, split_read in (("training", kept), ("validation", validation.split)):
        if not len(split_read):
            raise DataError(f"{root}: no {part} image is left; expected at least one")
    if limit is None:
        check_every_class_trains(kept.labels, classes, str(root))
    facts = facts_of(
        kept,
        validation.split,
        classes,
        root.resolve().name,
        digests.of_many(train.all_digests | validation.all_digests | test.all_digests),
        dropped_duplicates=int((~keep).sum()),
        skipped=problems,
    )
    return TrainingData(kept, validation.split, classes, "colour", facts)


def load_test(source: Source) -> Split:
    """Reads the pictures of the test, its own or those that are split off.

    Raises:
        DataError: the folder is not as described, or pictures are damaged and on_corrupt is "refuse".
    """
    root = Path(source.dataset).expanduser()
    _, parts = _parts(root, source)
    test = _read(parts["test"], source.image_size, "test")
    _accept(root, source, test.problems)
    if not len(test.split):
        raise DataError(f"{root}: no test image is left; expected at least one")
    return test.split


def _parts(root: Path, source: Source) -> tuple[tuple[str, ...], dict[str, list[_File]]]:
    """The classes, and the files that train, validate and test, each in an order that mixes the classes."""
    folders = _part_folders(root)
    main = folders.pop("train", root)
    classes = _classes(main, source)
    files = _files(root, main, classes, source)
    positions = split(
        np.array([file.label for file in files], np.int64),
        classes.names,
        str(main),
        seed=source.split_seed,
        keys=[file.name for file in files],
        validation=None if "validation" in folders else source.validation_fraction,
        test=None if "test" in folders else source.test_fraction,
    )
    chosen = {"train": positions.train, "validation": positions.validation, "test": positions.test}
    parts = {part: [files[position] for position in one] for part, one in chosen.items()}
    for part, folder in folders.items():
        given = _files(root, folder, classes, source)
        parts[part] = [given[position] for position in order([file.name for file in given], source.split_seed)]
    return classes.names, parts


def _part_folders(root: Path) -> dict[str, Path]:
    """The folders train, validation and test, as far as they are there; none where the folders are classes."""
    folders = _folders(root)
    found = [folder for folder in folders if folder.name.lower() in PARTS]
    if not any(_folders(folder) for folder in found):  # a class may be called "train": its pictures lie in it
        return {}
    parts = {PARTS[folder.name.lower()]: folder for folder in found}
    if len(found) < len(folders) or len(parts) < len(found) or "train" not in parts:
        raise DataError(
            f"{root}: folders {listed(folder.name for folder in folders)}; expected either train with or without "
            "validation (or val) and test, each with a folder a class, or the folders of the classes alone"
        )
    return parts


def _classes(main: Path, source: Source) -> Classes:
    folders = _folders(main)
    if not folders:
        raise DataError(f"{main} holds no folders; expected one of pictures for each class")
    if len(folders) == 1 and _folders(folders[0]):
        raise DataError(f"{main} holds the folder {folders[0].name!r} alone; is the dataset {folders[0]}?")
    return classes_of(np.array([_label(folder, source) for folder in folders]), source.class_names, str(main))


def _label(folder: Path, source: Source) -> str:
    """What a class's folder stands for: its name, or the number by which `class_names` counts."""
    return str(int(folder.name)) if source.class_names and folder.name.isdecimal() else folder.name


def _files(root: Path, part: Path, classes: Classes, source: Source) -> list[_File]:
    """All files of a part, however deep below their class's folder, by name."""
    strays = [entry.name for entry in _visible(part) if entry.name.lower().endswith(SUFFIXES) and entry.is_file()]
    if strays:
        raise DataError(f"{part}: {listed(strays)} lie in no class; expected every picture in the folder of its class")
    folders = _folders(part)
    labels = classes.number(
        np.array([_label(folder, source) for folder in folders], str), lambda row: str(folders[row])
    )
    files = []
    for folder, label in zip(folders, labels.tolist(), strict=True):
        inside = sorted(_walk(folder))
        if not inside:
            raise DataError(f"{folder} is empty; expected the pictures of a class. Add some, or remove the folder")
        files += [_File(path, path.relative_to(root).as_posix(), label) for path in inside]
    if not files:
        raise DataError(f"{part} holds no folders; expected one of pictures for each class")
    return files


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without hidden files and what file managers leave."""
    return sorted(entry for entry in folder.iterdir() if _counts(entry.name))


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _IGNORED


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in _visible(folder) if entry.is_dir()]


def _walk(folder: Path) -> Iterator[Path]:
    for entry in _visible(folder):
        if entry.is_dir():
            yield from _walk(entry)
        else:
            yield entry


def _read(
    files: Sequence[_File], image_size: int, part: str, *, kept: int | None = None, decoded: int | None = None
) -> _Read:
    """Reads files in parallel.

    Args:
        kept: so many pictures, from the first on, are kept; None: all.
        decoded: so many are decoded; None: all. The others are hashed.
    """
    kept = len(files) if kept is None else min(kept, len(files))
    decoded = len(files) if decoded is None else decoded
    images = np.empty((kept, image_size, image_size, 3), np.uint8)

    def read(position: int) -> tuple[str | None, str | None]:
        """The digest, and what is wrong."""
        try:
            content = files[position].path.read_bytes()
        except OSError as error:
            return None, f"cannot be read ({error.strerror})"
        digest = hashlib.sha256(content).hexdigest()
        if position < decoded:
            try:
                image = read_photo(content, image_size)
            except PhotoError as error:
                return digest, str(error)
            if position < kept:
                images[position] = image
        return digest, None

    # Pillow warns of odd metadata and of large pictures before we see how large; both are none of the user's concern
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.filterwarnings("ignore", module=r"PIL\.")
        results = list(
            tqdm(
                pool.map(read, range(len(files))),
                total=len(files),
                desc=f"reading {part}",
                unit="image",
                disable=not sys.stderr.isatty(),
            )
        )
    good = np.array([problem is None for _, problem in results[:kept]], bool)
    labels = np.array([file.label for file in files[:kept]], np.int64)
    found = [(file, digest, problem) for file, (digest, problem) in zip(files, results, strict=True)]
    return _Read(
        Split(images, labels) if good.all() else Split(images[good], labels[good]),
        digests=tuple(digest for _, digest, problem in found[:kept] if problem is None),
        all_digests={file.name: digest for file, digest, _ in found if digest is not None},
        problems=tuple(f"{file.name}: {problem}" for file, _, problem in found if problem is not None),
    )


def _accept(root: Path, source: Source, problems: Sequence[str]) -> None:
    """Raises DataError if there are problems that are not to be skipped."""
    if not problems or source.on_corrupt == "skip":
        return
    rest = f"\n  and {len(problems) - _LISTED:,} more" if len(problems) > _LISTED else ""
    raise DataError(
        f"{root}: {len(problems):,} files cannot be used:"
        + "".join(f"\n  {problem}" for problem in sorted(problems)[:_LISTED])
        + rest
        + '\nRepair or remove them, or leave them out with on_corrupt="skip"'
    )
