"""Writes JSON in the layout of RapidJSON's PrettyWriter and numbers as TensorFlow Serving prints them, in bulk.

Number formatting is done for whole arrays at once, by one `%` operation.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np

_CONTROL = re.compile(r"[\x00-\x1f]")
_ESCAPED = {code: f"\\u{code:04X}" for code in range(32)}
_ESCAPED |= str.maketrans({"\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"})
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_FLOAT_MAX = float(np.finfo(np.float32).max)
INDENT = "    "
QUOTED_LIMIT = 256
_AT_ONCE = 2**16  # numbers formatted by one operation, during which no other thread runs
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode  # `json.dumps` makes an encoder for every call


def format_floats(values: np.ndarray) -> list[str]:
    """Format floats as TensorFlow Serving does.

    `%g` where that parses back to the same value, else `%.9g` (`%.17g` for double), and ".0" where there is neither a
    dot nor an exponent.

    Args:
        values: float32 or float64, any shape.

    Returns:
        One string for each value in row-major order.
    """
    flat = values.ravel()
    parts = [_format_flat(flat[start : start + _AT_ONCE]) for start in range(0, flat.size, _AT_ONCE)]
    return parts[0] if len(parts) == 1 else list(chain.from_iterable(parts))


def _format_flat(flat: np.ndarray) -> list[str]:
    values = flat.tolist()
    texts = ("%g " * flat.size % tuple(values)).split()
    with np.errstate(over="ignore", invalid="ignore"):
        same = (np.array(list(map(float, texts)), dtype=np.float64).astype(flat.dtype) == flat).tolist()
    full = "%.9g" if flat.itemsize == 4 else "%.17g"
    texts = [text if exact else full % value for text, value, exact in zip(texts, values, same, strict=True)]
    return [text if "." in text or "e" in text else _NOT_FINITE.get(text) or f"{text}.0" for text in texts]


def quote(text: bytes) -> str:
    """Quote bytes as a JSON string; bytes that are not UTF-8 pass through raw (`surrogateescape`)."""
    return quote_text(text.decode("utf-8", "surrogateescape"))


def quote_text(text: str) -> str:
    """Quote a str that may hold escaped raw bytes."""
    if not _CONTROL.search(text):
        return _ENCODE(text)
    # RapidJSON writes the digits of an escape in capitals.
    return f'"{text.translate(_ESCAPED)}"'


def encode(text: str) -> bytes:
    """Encode finished JSON; raw bytes that came in come out."""
    return text.encode("utf-8", "surrogateescape")


def base64_object(data: bytes, level: int) -> str:
    """Write `{"b64": …}` with its one member on a line of its own, `level` deep."""
    inner = INDENT * (level + 1)
    return f'{{\n{inner}"b64": "{base64.b64encode(data).decode("ascii")}"\n{INDENT * level}}}'


def single_line(texts: Iterator[str], shape: tuple[int, ...]) -> str:
    """Join formatted values into nested lists of a shape, all on one line."""
    if not shape:
        return next(texts)
    if len(shape) == 1:
        return "[" + ", ".join([next(texts) for _ in range(shape[0])]) + "]"
    return "[" + ", ".join([single_line(texts, shape[1:]) for _ in range(shape[0])]) + "]"


def many_lines(texts: Iterator[str], shape: tuple[int, ...], level: int) -> str:
    """Join formatted values into nested lists of a shape, each value on a line of its own."""
    if not shape:
        return next(texts)
    if shape[0] == 0:
        return "[]"
    inner = "\n" + INDENT * (level + 1)
    if len(shape) == 1:
        items: Iterable[str] = [next(texts) for _ in range(shape[0])]
    else:
        items = [many_lines(texts, shape[1:], level + 1) for _ in range(shape[0])]
    return "[" + inner + ("," + inner).join(items) + "\n" + INDENT * level + "]"


def error_body(message: str) -> bytes:
    """The body of every failed REST call."""
    return encode('{\n    "error": ' + quote_text(message) + "\n}")


def quoted_value(value: Any) -> str:
    """Write a parsed JSON value for an error message, cut near 256 bytes as TensorFlow Serving does."""
    text = _pretty(value) if _is_shallow(value) else str(type(value).__name__)
    return text if len(text) <= QUOTED_LIMIT else text[:QUOTED_LIMIT] + "..."


def _is_shallow(value: Any, limit: int = 100) -> bool:
    """Whether following first elements ends soon; json.dumps recurses, a hostile document may nest without end."""
    for _ in range(limit):
        if isinstance(value, list) and value:
            value = value[0]
        elif isinstance(value, dict) and value:
            value = next(iter(value.values()))
        else:
            return True
    return False


def _pretty(value: Any) -> str:
    if isinstance(value, float):  # as a float where it fits in one
        return format_floats(np.array([value], np.float32 if abs(value) <= _FLOAT_MAX else np.float64))[0]
    try:
        return json.dumps(value, ensure_ascii=False, indent=4)
    except RecursionError:
        return type(value).__name__
