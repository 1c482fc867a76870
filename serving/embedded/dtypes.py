"""Element types of tensors: their names, their numpy types, and the typed field of TensorProto each lives in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np


@dataclass(frozen=True)
class ElementType:
    """One DataType.

    Attributes:
        enum: the number in types.proto.
        name: TensorFlow's short name, as in error messages ("float", not "DT_FLOAT").
        numpy: the numpy type that holds it; object for strings (bytes).
        field: the repeated field of TensorProto, or "" where this server has none.
    """

    enum: int
    name: str
    numpy: np.dtype
    field: str


# The numbers stand here, and are not read from TensorFlow's types.proto, since parse_apart.py does without TensorFlow.
_ELEMENTS: tuple[tuple[int, str, Any, str], ...] = (
    (1, "float", np.float32, "float_val"),
    (2, "double", np.float64, "double_val"),
    (3, "int32", np.int32, "int_val"),
    (4, "uint8", np.uint8, "int_val"),
    (5, "int16", np.int16, "int_val"),
    (6, "int8", np.int8, "int_val"),
    (7, "string", np.object_, "string_val"),
    (8, "complex64", np.complex64, "scomplex_val"),
    (9, "int64", np.int64, "int64_val"),
    (10, "bool", np.bool_, "bool_val"),
    (14, "bfloat16", ml_dtypes.bfloat16, "half_val"),
    (17, "uint16", np.uint16, "int_val"),
    (18, "complex128", np.complex128, "dcomplex_val"),
    (19, "half", np.float16, "half_val"),
    (22, "uint32", np.uint32, "uint32_val"),
    (23, "uint64", np.uint64, "uint64_val"),
)
BY_ENUM = {enum: ElementType(enum, name, np.dtype(numpy_type), field) for enum, name, numpy_type, field in _ELEMENTS}
BY_NUMPY = {element.numpy: element for element in BY_ENUM.values()}
FLOAT, STRING, BOOL = 1, 7, 10


def name_of(enum: int) -> str:
    """Return TensorFlow's short name of a DataType, known to this server or not."""
    if enum in BY_ENUM:
        return BY_ENUM[enum].name
    from tensorflow.core.framework import types_pb2

    try:
        return types_pb2.DataType.Name(enum).removeprefix("DT_").lower()
    except ValueError:
        return f"unknown dtype enum ({enum})"
