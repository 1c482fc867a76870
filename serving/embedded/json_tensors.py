"""Request JSON to tensors: the row ("instances") and the columnar ("inputs") form of :predict.

Whole lists go to numpy at once. Only where numpy's answer is not clearly what TensorFlow Serving would say (a wrong
type, a ragged list, a number out of range) does the slow path walk the values, to convert them or to find the exact
error.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.embedded import dtypes, json_reader
from serving.embedded.dtypes import ElementType
from serving.embedded.errors import Code, ServingError, invalid_argument
from serving.embedded.json_writer import quoted_value

MAX_RANK = 64  # numpy's limit; TensorFlow's is 254
_UINT64_MAX, _INT64_MIN = 2**64 - 1, -(2**63)
_INT32 = (-(2**31), 2**31 - 1)
_INTEGER_RANGES = {
    "int32": _INT32,
    "int16": _INT32,  # RapidJSON asks for an int32 token; TensorFlow then keeps the low bits
    "int8": _INT32,
    "uint8": _INT32,
    "int64": (_INT64_MIN, 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, _UINT64_MAX),
}


@dataclass(frozen=True)
class PredictBody:
    """A parsed :predict body.

    Attributes:
        signature: its name as sent, "" for the default.
        inputs: tensors by alias; None where the model has no such signature.
        row_format: whether it came as rows ("instances").
    """

    signature: str
    inputs: dict[str, np.ndarray] | None = None
    row_format: bool = False


def read_predict_body(body: bytes, wanted: Mapping[str, Mapping[str, int]]) -> PredictBody:
    """Turn a :predict body into tensors.

    Args:
        body: the request's bytes.
        wanted: DataType of every input by signature ("" for the default) and alias.

    Raises:
        ServingError: INVALID_ARGUMENT (UNIMPLEMENTED for element types that have no JSON form).
    """
    document = parse_object(body)
    signature = signature_name(document)
    if signature not in wanted:
        return PredictBody(signature)
    return _read_inputs(document, wanted[signature], signature, body)


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a request body, which must be an object."""
    document = json_reader.parse(body)
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {quoted_value(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """Return "signature_name" of a body, "" where there is none."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {quoted_value(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name


def _read_inputs(document: Mapping[str, Any], wanted: Mapping[str, int], signature: str, body: bytes) -> PredictBody:
    if not wanted:
        raise invalid_argument(f"Failed to get input map for signature: {signature or 'DEFAULT'}")
    reader = _Reader(body)
    if "instances" in document:
        rows = document["instances"]
        if "inputs" in document:
            raise _malformed(
                document, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
            )
        if not isinstance(rows, list):
            raise _malformed(document, "Expecting 'instances' to be an list/array")
        if not rows:
            raise _malformed(document, "No values in 'instances' array")
        return PredictBody(signature, _read_rows(reader, rows, wanted), row_format=True)
    if "inputs" in document:
        return PredictBody(signature, _read_columns(reader, document["inputs"], wanted))
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def is_base64_object(value: Any) -> bool:
    """Whether a value is `{"b64": "…"}`: exactly that key, a string."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(text: str) -> bytes:
    """Decode standard base64 as absl does: padding, of '=' or '.', is there in full or not at all; no '-' and '_'."""
    for candidate in (text, "".join(text.split())):  # white space is skipped
        digits = candidate.rstrip("=.")
        padding = -len(digits) % 4
        if len(candidate) - len(digits) in (0, padding):
            with contextlib.suppress(binascii.Error, ValueError):
                return base64.b64decode(digits + "=" * padding, validate=True)
    raise invalid_argument("Unable to base64 decode")


def _malformed(document: Mapping[str, Any], reason: str) -> ServingError:
    return invalid_argument(f"JSON Value: {quoted_value(dict(document))} {reason}")


def _read_columns(reader: _Reader, value: Any, wanted: Mapping[str, int]) -> dict[str, np.ndarray]:
    if not isinstance(value, dict) or is_base64_object(value):
        if len(wanted) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        alias, enum = next(iter(wanted.items()))
        return {alias: reader.tensor(value, enum, alias)}
    tensors = {}
    for alias, enum in wanted.items():
        if alias not in value:
            raise invalid_argument(f"Missing named input: {alias} in 'inputs' object.")
        tensors[alias] = reader.tensor(value[alias], enum, alias)
    return tensors


def _read_rows(reader: _Reader, rows: list[Any], wanted: Mapping[str, int]) -> dict[str, np.ndarray]:
    if not isinstance(rows[0], dict) and len(wanted) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    if isinstance(rows[0], dict) and not is_base64_object(rows[0]):
        columns = _columns_of_objects(rows, wanted)
    else:
        alias = next(iter(wanted))
        columns = {alias: rows} if len(wanted) == 1 and _no_objects(rows) else None
    if columns is not None:
        try:
            return {alias: reader.tensor(column, wanted[alias], alias) for alias, column in columns.items()}
        except ServingError:
            pass  # the walk below reports it by element, as TensorFlow Serving does
    return _walk_rows(reader, rows, wanted)


def _no_objects(rows: list[Any]) -> bool:
    return not any(isinstance(row, dict) and not is_base64_object(row) for row in rows)


def _columns_of_objects(rows: list[Any], wanted: Mapping[str, int]) -> dict[str, list[Any]] | None:
    """Turn rows of objects into columns, or None where some row is not an object with exactly the wanted keys."""
    keys = wanted.keys()
    for row in rows:
        if not isinstance(row, dict) or row.keys() != keys or is_base64_object(row):
            return None
    return {alias: [row[alias] for row in rows] for alias in wanted}


def _walk_rows(reader: _Reader, rows: list[Any], wanted: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Convert row by row; slow, and the source of every error message about "instances"."""
    objects = isinstance(rows[0], dict) and not is_base64_object(rows[0])
    columns: dict[str, list[np.ndarray]] = {}
    for number, row in enumerate(rows):
        row_is_object = isinstance(row, dict) and not is_base64_object(row)
        if objects and not row_is_object:
            raise invalid_argument(f"Expecting object but got list at item {number} of input list")
        if row_is_object and not objects:
            raise invalid_argument(f"Expecting value/list but got object at item {number} of input list")
        items = row.items() if objects else [(next(iter(wanted)), row)]
        for alias, value in items:
            try:
                _add_item(reader, columns.setdefault(alias, []), value, alias, wanted)
            except ServingError as error:
                where = f"{number} key: {alias}" if objects else str(number)
                raise invalid_argument(
                    f"Failed to process element: {where} of 'instances' list. Error: {error}"
                ) from None
        if objects and row.keys() != wanted.keys():
            raise invalid_argument(
                f"Failed to process element: {number} of 'instances' list. JSON object: {quoted_value(row)} "
                f"keys must be equal to: {','.join(sorted(wanted))}"
            )
    return {alias: np.stack(column) for alias, column in columns.items()}


def _add_item(reader: _Reader, column: list[np.ndarray], value: Any, alias: str, wanted: Mapping[str, int]) -> None:
    if alias not in wanted:
        raise invalid_argument(f"JSON object: does not have named input: {alias}")
    tensor = reader.tensor(value, wanted[alias], alias)
    if column and column[0].size != tensor.size:
        raise invalid_argument(f"Expecting tensor size: {column[0].size} but got: {tensor.size}")
    if column and column[0].shape != tensor.shape:
        raise invalid_argument(f"Expecting shape {_shape_text(column[0])} but got: {_shape_text(tensor)}")
    column.append(tensor)


def _shape_text(tensor: np.ndarray) -> str:
    return "[" + ",".join(map(str, tensor.shape)) + "]"


class _Reader:
    """Converts JSON values of one body to tensors."""

    def __init__(self, body: bytes) -> None:
        # numpy takes true for 1; whether the body has booleans at all is one fast search.
        self._may_have_bools = b"true" in body or b"false" in body

    def tensor(self, value: Any, enum: int, alias: str) -> np.ndarray:
        """Convert one JSON value (scalar or nested lists) to a tensor of a DataType."""
        element = dtypes.BY_ENUM.get(enum)
        fast = self._fast(value, element) if element is not None else None
        if fast is not None:
            return fast
        shape = _dense_shape(value)
        if len(shape) > MAX_RANK:
            raise invalid_argument(f"tensor parsing error: {alias}")
        flat: list[Any] = []
        self._fill(value, 0, shape, enum, flat)
        if element is None:  # no values, or _fill would have refused them
            raise ServingError(Code.UNIMPLEMENTED, f"No JSON form for type: {dtypes.name_of(enum)}")
        return _from_list(flat, element).reshape(shape)

    def _fast(self, value: Any, element: ElementType) -> np.ndarray | None:
        """Convert in bulk, or return None where the slow path has to look."""
        if element.enum == dtypes.STRING:
            return _strings(value)
        if self._may_have_bools and element.enum != dtypes.BOOL:
            return None
        try:
            array = np.array(value)
        except (ValueError, OverflowError):  # ragged, or nested too deep
            return None
        kind = array.dtype.kind
        if element.name in ("float", "double"):
            if kind not in "fiu" or array.size == 0:
                return None
            with np.errstate(over="ignore"):
                return array.astype(element.numpy)
        if element.enum == dtypes.BOOL:
            return array if kind == "b" else None
        bounds = _INTEGER_RANGES.get(element.name)
        if bounds is None or kind not in "iu" or array.size == 0:
            return None
        if int(array.min()) < bounds[0] or int(array.max()) > bounds[1]:
            return None
        return array.astype(element.numpy)

    def _fill(self, value: Any, level: int, shape: list[int], enum: int, flat: list[Any]) -> None:
        rank = len(shape)
        if not isinstance(value, list):
            if level != rank:
                raise invalid_argument(
                    f"JSON Value: {quoted_value(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                    f"Expected at level: {rank}"
                )
            flat.append(self._scalar(value, enum))
            return
        if level >= rank:
            raise invalid_argument(f"Encountered list at unexpected level: {level} expected < {rank}")
        if len(value) != shape[level]:
            raise invalid_argument(
                f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
            )
        for item in value:
            self._fill(item, level + 1, shape, enum, flat)

    def _scalar(self, value: Any, enum: int) -> Any:
        name = dtypes.name_of(enum)
        if isinstance(value, dict):
            if name != "string":
                raise _type_error(value, name)
            if not is_base64_object(value):
                raise invalid_argument(f"JSON Value: {quoted_value(value)} not formatted correctly for base64 data")
            return decode_base64(value["b64"])
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in ("float", "double"):
            if not number:
                raise _type_error(value, name)
            return float(value)
        if name in _INTEGER_RANGES:
            low, high = _INTEGER_RANGES[name]
            if not number or isinstance(value, float) or not low <= value <= high:
                raise _type_error(value, name)
            return value
        if name == "bool":
            if not isinstance(value, bool):
                raise _type_error(value, name)
            return value
        if name == "string":
            if not isinstance(value, str):
                raise _type_error(value, name)
            return value.encode("utf-8", "surrogateescape")
        raise ServingError(Code.UNIMPLEMENTED, f"Conversion of JSON Value: {quoted_value(value)} to type: {name}")


def json_type(value: Any) -> str:
    """RapidJSON's name of a value's type."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return "True" if value else "False"
    return {dict: "Object", list: "Array", str: "String"}.get(type(value), "Number")


def _type_error(value: Any, expected: str) -> ServingError:
    return invalid_argument(
        f"JSON Value: {quoted_value(value)} Type: {json_type(value)} is not of expected type: {expected}"
    )


def _dense_shape(value: Any) -> list[int]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _strings(value: Any) -> np.ndarray | None:
    """Convert a scalar or a flat list of strings and b64 objects; None for anything else."""
    values = value if isinstance(value, list) else [value]
    decoded: list[bytes] = []
    for item in values:
        if isinstance(item, str):
            decoded.append(item.encode("utf-8", "surrogateescape"))
        elif is_base64_object(item):
            decoded.append(decode_base64(item["b64"]))
        else:
            return None
    array = _from_list(decoded, dtypes.BY_ENUM[dtypes.STRING])
    return array if isinstance(value, list) else array.reshape(())


def _from_list(flat: list[Any], element: ElementType) -> np.ndarray:
    if element.enum == dtypes.STRING:
        array = np.empty(len(flat), dtype=object)
        array[:] = flat
        return array
    if element.numpy.kind in "iu" and element.numpy.itemsize < 4:
        return np.array(flat, dtype=np.int64).astype(element.numpy)  # the low bits stay, the rest wraps
    with np.errstate(over="ignore"):
        return np.array(flat, dtype=np.float64 if element.numpy.kind == "f" else element.numpy).astype(element.numpy)
