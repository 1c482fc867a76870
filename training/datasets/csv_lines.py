"""Reads a CSV of grey images: a label and n*n pixels, 0..255, a line; in chunks, every fault named by its line."""

from __future__ import annotations

import csv
import gzip
import math
import os
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from training.datasets.base import DataError
from training.datasets.labels import texts

LABEL = "label"  # the column of this name, where there is a header with one; else the first
_CHUNK = 500  # lines
_PIXEL_NAME = re.compile(r"(pixel|px|p)?[ _-]?\d+(x\d+)?")


@dataclass(frozen=True)
class Table:
    """The lines of a CSV."""

    path: Path
    images: np.ndarray  # uint8 (N, n, n, 1); N = 0 where only labels were asked for
    labels: np.ndarray  # str (N,)
    lines: np.ndarray  # int64 (N,), their numbers, from 1

    def place(self, row: int) -> str:
        return f"{self.path}, line {self.lines[row]:,}"


@dataclass(frozen=True)
class _Layout:
    """What the first line says about all of them."""

    path: Path
    names: tuple[str, ...] | None  # of the columns
    columns: int
    label: int  # column, from 0
    side: int  # pixels, height and width


def read(path: Path, *, labels_only: bool = False) -> Table:
    """Reads a whole CSV, with or without a header, packed with gzip or not.

    Args:
        path: packed if its name ends in .gz.
        labels_only: leave the pixels.

    Raises:
        DataError: the message names the line, from 1, and the column.
    """
    lines = _lines(path)
    first = next(lines, None)
    if first is None:
        raise DataError(f"{path} is empty; expected a line an image: its label and n*n pixels, 0..255")
    layout, is_header = _layout(path, first[1])
    pending = lines if is_header else chain([first], lines)
    images, labels, numbers = [], [], []
    while chunk := list(islice(pending, _CHUNK)):
        chunk_numbers, chunk_lines = zip(*chunk, strict=True)
        pixels, chunk_labels = _parse(layout, chunk_numbers, chunk_lines, labels_only)
        images.append(pixels)
        labels += chunk_labels
        numbers += chunk_numbers
    if not labels:
        raise DataError(f"{path} has no line after its header; expected a line an image")
    table = Table(
        path, np.concatenate(images).reshape(-1, layout.side, layout.side, 1), np.array(labels), np.array(numbers)
    )
    return replace(table, labels=texts(table.labels, table.place))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers from 1."""
    with ExitStack() as stack:
        packed = stack.enter_context(path.open("rb"))
        file = stack.enter_context(gzip.open(packed)) if path.name.lower().endswith(".gz") else packed
        bar = stack.enter_context(
            tqdm(
                total=os.path.getsize(path),
                desc=f"reading {path.name}",
                unit="B",
                unit_scale=True,
                disable=not sys.stderr.isatty(),
            )
        )
        try:
            for number, line in enumerate(file, start=1):
                if number % _CHUNK == 0:
                    bar.update(packed.tell() - bar.n)
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if line.strip():
                    yield number, line.rstrip(b"\r\n")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path} is truncated or no gzip file ({error}); expected a whole one") from error


def _layout(path: Path, line: bytes) -> tuple[_Layout, bool]:
    """What the first line says, and whether it is a header: more than half of it is no number, or the columns are
    numbered, as pandas does it, beside one that is called `label` or beyond what a pixel can be."""
    fields = [field.strip() for field in _fields(path, 1, line)]
    no_numbers = sum(not _is_number(field) for field in fields)
    others = [field for field in fields if field.lower() != LABEL]
    numbered = others in ([str(first + number) for number in range(len(others))] for first in (0, 1))
    certain = len(others) < len(fields) or len(fields) > 256
    is_header = len(fields) > 2 and (no_numbers > len(fields) / 2 or (numbered and certain))
    pixels = len(fields) - 1
    side = math.isqrt(pixels)
    if pixels < 1 or side * side != pixels:
        side_in_colour = math.isqrt(pixels // 3)
        if pixels and 3 * side_in_colour**2 == pixels:
            hint = (
                f"; {side_in_colour}x{side_in_colour}x3 could be colour, in an order that a CSV does not tell: "
                "use an .npz with images (N, H, W, 3), or a folder"
            )
        elif is_header and not fields[0]:
            hint = "; the first column has no name: is it an index? Write the CSV without it"
        else:
            hint = "; are the values separated by commas?" if pixels < 1 else ""
        raise DataError(
            f"{path}: {len(fields)} columns; expected 1 for the label and a square number of pixels "
            f"(785 columns for 28x28){hint}"
        )
    label = 0
    if is_header:
        lower = [field.lower() for field in fields]
        if lower.count(LABEL) > 1 or (LABEL not in lower and _PIXEL_NAME.fullmatch(lower[0])):
            raise DataError(
                f"{path}, line 1: {lower.count(LABEL)} columns are called {LABEL!r} and the first one {fields[0]!r}; "
                f"expected the labels in the first column, or in one that is called {LABEL!r}"
            )
        label = lower.index(LABEL) if LABEL in lower else 0
    names = tuple(fields) if is_header else None
    return _Layout(path, names, len(fields), label, side), is_header


def _parse(
    layout: _Layout, numbers: Sequence[int], lines: Sequence[bytes], labels_only: bool
) -> tuple[np.ndarray, list[str]]:
    """Pixels uint8 (n, side*side), none where only labels are wanted, and the labels of some lines."""
    pixels = layout.columns - 1
    plain = all(line.count(b",") == pixels and b'"' not in line for line in lines)
    if plain:
        rows = [line.split(b",", layout.label + 1) for line in lines]
        labels = [row.pop(layout.label) for row in rows]
        text = b",".join([field for row in rows for field in row]) + b","
        values = np.empty(0, np.uint8) if labels_only else _small_numbers(text.replace(b".0,", b","))
        if values is not None:
            named = zip(numbers, labels, strict=True)
            return values.reshape(-1, pixels), [_text(layout.path, number, label) for number, label in named]
    parsed = [_parse_line(layout, number, line) for number, line in zip(numbers, lines, strict=True)]
    return np.stack([values for values, _ in parsed]), [label for _, label in parsed]


def _small_numbers(text: bytes) -> np.ndarray | None:
    """Numbers of one to three digits, 0..255, with a comma after each, as uint8 (N,); None for any other text."""
    raw = np.frombuffer(text, np.uint8)
    digits = raw - np.uint8(ord("0"))  # what is below "0" wraps around to above 9
    ends = np.flatnonzero(raw == ord(","))
    lengths = np.diff(ends, prepend=-1) - 1
    if np.count_nonzero(digits > 9) != len(ends) or lengths.min() < 1 or lengths.max() > 3:
        return None
    values = digits[ends - 1].astype(np.int16)
    values += np.where(lengths > 1, digits[ends - 2], 0) * np.int16(10)
    values += np.where(lengths > 2, digits[ends - 3], 0) * np.int16(100)
    return values.astype(np.uint8) if values.max() <= 255 else None


def _parse_line(layout: _Layout, number: int, line: bytes) -> tuple[np.ndarray, str]:
    """One line in any notation that means whole numbers, such as 12.0; or what is wrong with it."""
    fields = _fields(layout.path, number, line)
    if len(fields) != layout.columns:
        raise DataError(
            f"{layout.path}, line {number:,}: {len(fields)} columns; expected {layout.columns} as in the first line, "
            f"a label and {layout.side}x{layout.side} pixels"
        )
    label = fields.pop(layout.label)
    try:
        values = np.array([float(field) for field in fields])
        wrong = np.flatnonzero(~((values >= 0) & (values <= 255) & (values == np.floor(values))))
        position = int(wrong[0]) if len(wrong) else None
    except ValueError:
        position = next(position for position, field in enumerate(fields) if not _is_number(field))
    if position is not None:
        column = position + (position >= layout.label)
        name = f" ({layout.names[column]})" if layout.names else ""
        got = repr(fields[position]) if fields[position].strip() else "nothing"
        raise DataError(
            f"{layout.path}, line {number:,}, column {column + 1}{name}: expected a whole number 0..255, got {got}"
        )
    return values.astype(np.uint8), label


def _fields(path: Path, number: int, line: bytes) -> list[str]:
    try:
        (fields,) = csv.reader([_text(path, number, line)], strict=True)
    except csv.Error as error:
        raise DataError(f"{path}, line {number:,}: {error}; expected values separated by commas") from error
    return fields


def _text(path: Path, number: int, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number:,}: expected text in UTF-8 ({error})") from error


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
