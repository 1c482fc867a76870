"""Element types of tensors: their names, their numpy types, and the typed field of TensorProto each lives in."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from tensorflow.core.framework import types_pb2


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


def _element(name: str, numpy_type: object, field: str) -> ElementType:
    return ElementType(types_pb2.DataType.Value(f"DT_{name.upper()}"), name, np.dtype(numpy_type), field)  # type: ignore[call-overload]


BY_ENUM = {
    element.enum: element
    for element in (
        _element("float", np.float32, "float_val"),
        _element("double", np.float64, "double_val"),
        _element("int32", np.int32, "int_val"),
        _element("int16", np.int16, "int_val"),
        _element("int8", np.int8, "int_val"),
        _element("uint8", np.uint8, "int_val"),
        _element("uint16", np.uint16, "int_val"),
        _element("int64", np.int64, "int64_val"),
        _element("uint32", np.uint32, "uint32_val"),
        _element("uint64", np.uint64, "uint64_val"),
        _element("bool", np.bool_, "bool_val"),
        _element("string", np.object_, "string_val"),
        _element("half", np.float16, "half_val"),
        _element("bfloat16", ml_dtypes.bfloat16, "half_val"),
        _element("complex64", np.complex64, "scomplex_val"),
        _element("complex128", np.complex128, "dcomplex_val"),
    )
}
BY_NUMPY = {element.numpy: element for element in BY_ENUM.values()}
FLOAT, STRING, BOOL = types_pb2.DT_FLOAT, types_pb2.DT_STRING, types_pb2.DT_BOOL


def name_of(enum: int) -> str:
    """Return TensorFlow's short name of a DataType, known to this server or not."""
    if enum in BY_ENUM:
        return BY_ENUM[enum].name
    try:
        return types_pb2.DataType.Name(enum).removeprefix("DT_").lower()
    except ValueError:
        return f"unknown dtype enum ({enum})"
