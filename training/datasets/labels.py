"""From labels as a file has them, numbers or names, to class ids, and the order of the classes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.datasets.base import DataError

_NUMBER = re.compile(r"[+-]?\d+(\.\d*(e[+-]?\d+)?)?|[+-]?\.\d+|nan", re.IGNORECASE)
_SHOWN = 10  # names in a message


@dataclass(frozen=True)
class Classes:
    """The classes in the model's order."""

    names: tuple[str, ...]
    ids: Mapping[str, int]  # by the label, as text

    def number(self, labels: np.ndarray, place: Callable[[int], str]) -> np.ndarray:
        """The class ids of labels.

        Args:
            labels: str (N,), as `texts` gives them.
            place: where the n-th label stands, for messages.

        Returns:
            int64 (N,).

        Raises:
            DataError: a label that belongs to no class.
        """
        values, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
        unknown = [position for value, position in zip(values, first, strict=True) if value not in self.ids]
        if unknown:
            position = int(min(unknown))
            raise DataError(
                f"{place(position)}: label {str(labels[position])!r} is no class; expected {listed(self.ids)}. "
                "Correct the label, or the class names"
            )
        return np.array([self.ids[value] for value in values], np.int64)[inverse.reshape(-1)]


def texts(labels: Sequence[str] | np.ndarray, place: Callable[[int], str]) -> np.ndarray:
    """Labels as text, a whole number written as such ("3" for "3.0").

    Args:
        labels: str (N,).
        place: where the n-th label stands, for messages.

    Raises:
        DataError: a label that is empty, NaN, negative or a fraction.
    """
    values, first, inverse = np.unique(np.asarray(labels, str), return_index=True, return_inverse=True)
    written = [_written(str(value).strip()) for value in values]
    wrong = [position for text, position in zip(written, first, strict=True) if text is None]
    if wrong:
        position = int(min(wrong))
        raise DataError(
            f"{place(position)}: label {str(labels[position]).strip()!r}; expected a name or a whole number from 0. "
            "Correct it or remove the image"
        )
    return np.array(written, str)[inverse.reshape(-1)]


def _written(text: str) -> str | None:
    """A name as it is, a whole number as such; None for what is no label."""
    if not text or not _NUMBER.fullmatch(text):
        return text or None
    number = float(text)
    return str(int(number)) if number.is_integer() and number >= 0 else None


def classes_of(labels: np.ndarray, class_names: Sequence[str] | None, origin: str) -> Classes:
    """The classes that occur, in order: by number or name, or as `class_names` has them.

    Args:
        labels: str (N,), as `texts` gives them.
        class_names: the names of the labels 0, 1, ...; or, where labels are names, these in the order wanted.
        origin: the file, for messages.

    Raises:
        DataError: fewer than two classes, or names that cannot be.
    """
    found = {str(label) for label in np.unique(labels)}
    if len(found) < 2:
        raise DataError(f"{origin}: every image is of the class {listed(found)}; expected at least two classes")
    if class_names is None:
        names = in_order(found)
        check_names(names, origin)
        return Classes(names, {name: number for number, name in enumerate(names)})
    names = tuple(map(str, class_names))
    check_names(names, origin)
    if all(label.isdecimal() for label in found):
        return Classes(names, {str(number): number for number in range(len(names))})
    return Classes(names, {name: number for number, name in enumerate(names)})


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted, whole numbers by their value and first."""
    return tuple(sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name)))


def check_names(names: Sequence[str], origin: str) -> None:
    """Raises DataError unless the class names can be told apart and written one a line."""
    if len(names) < 2:
        raise DataError(f"{origin}: {listed(names)} is the only class; expected at least two")
    for name in names:
        if not name.strip() or len(name.splitlines()) > 1 or not is_utf8(name):
            raise DataError(f"{origin}: class name {name!r}; expected a name of one line in UTF-8")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{origin}: class names {listed(twice)} occur twice; expected each once")


def listed(names: Iterable[str]) -> str:
    """Names for a message, shortened after the first ten."""
    names = list(names)
    rest = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + rest


def readable(name: str) -> str:
    r"""The name of a file in UTF-8: with \xff for a byte that is none, where Python has half a surrogate pair."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_utf8(name: str) -> bool:
    """Whether a name can be written in UTF-8, which those of files on Linux need not be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
