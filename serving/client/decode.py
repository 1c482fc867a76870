"""From the outputs of an answer, JSON values or arrays, to typed arrays; anything unexpected is a BadResponse."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.client.errors import BadResponse
from serving.client.results import Bytes, Floats

Outputs = Mapping[str, object]


def floats(outputs: Outputs, name: str, shape: tuple[int | None, ...]) -> Floats:
    """Output `name` as float32 of this shape (None: any size)."""
    return _numbers(outputs, name, shape, np.float32)


def integers(outputs: Outputs, name: str, shape: tuple[int | None, ...]) -> npt.NDArray[np.int64]:
    """Output `name` as int64 of this shape (None: any size)."""
    return _numbers(outputs, name, shape, np.int64)


def texts(outputs: Outputs, name: str, count: int) -> list[str]:
    """Output `name`, a string vector of this length, decoded as UTF-8."""
    return [blob.decode("utf-8", "replace") for blob in blobs(outputs, name, count)]


def blobs(outputs: Outputs, name: str, count: int) -> list[bytes]:
    """Output `name`, a string vector of this length, as the bytes that the model made."""
    value = _get(outputs, name)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list) or len(value) != count:
        raise BadResponse(f"output {name!r}: expected {count} strings, got {_shown(value)}")
    return [_blob(name, element) for element in value]


def only_row(outputs: Outputs, name: str) -> object:
    """The one row of output `name`, whose first dimension must be 1."""
    value = _get(outputs, name)
    if not isinstance(value, list | np.ndarray) or len(value) != 1:
        raise BadResponse(f"output {name!r}: expected one row, got {_shown(value)}")
    row: object = value[0]
    return row


def png(blob: bytes, name: str) -> Bytes:
    """The pixels of an encoded picture, uint8 (h, w) or (h, w, 3)."""
    try:
        with Image.open(io.BytesIO(blob)) as image:
            return np.array(image.convert("L" if image.mode == "L" else "RGB"), dtype=np.uint8)
    except (OSError, ValueError) as error:
        raise BadResponse(f"output {name!r}: expected an encoded picture, got {len(blob)} other bytes") from error


def _numbers(outputs: Outputs, name: str, shape: tuple[int | None, ...], dtype: type[Any]) -> npt.NDArray[Any]:
    value = _get(outputs, name)
    try:
        array = np.asarray(value)
        numeric = array.dtype.kind in ("if" if dtype is np.float32 else "i")
    except ValueError:  # ragged
        numeric = False
    if not numeric and not (isinstance(value, list) and not value):
        raise BadResponse(f"output {name!r}: expected numbers of shape {_wanted(shape)}, got {_shown(value)}")
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        raise BadResponse(f"output {name!r}: expected shape {_wanted(shape)}, got {array.shape}")
    array = array.astype(dtype)
    array.setflags(write=False)
    return array


def _get(outputs: Outputs, name: str) -> object:
    if name not in outputs:
        raise BadResponse(f"the answer has no output {name!r}, only {', '.join(sorted(outputs)) or 'none'}")
    return outputs[name]


def _blob(name: str, element: object) -> bytes:
    if isinstance(element, bytes):
        return element
    if isinstance(element, str):
        return element.encode("utf-8", "surrogatepass")
    if isinstance(element, dict) and isinstance(element.get("b64"), str):
        try:
            return base64.b64decode(element["b64"], validate=True)
        except ValueError as error:
            raise BadResponse(f"output {name!r}: broken base64") from error
    raise BadResponse(f"output {name!r}: expected a string, got {_shown(element)}")


def _wanted(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"
