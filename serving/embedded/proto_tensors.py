"""TensorProto to numpy and back, by the rules of `Tensor::FromProto` and `Tensor::AsProtoField`."""

from __future__ import annotations

import math

import numpy as np
from tensorflow.core.framework.tensor_pb2 import TensorProto

from serving.embedded import dtypes
from serving.embedded.dtypes import ElementType
from serving.embedded.errors import Code, ServingError

# A tensor may be written as its shape and one value; without a limit, 20 bytes ask for any amount of memory. This is
# 400 images of 224x224x3 floats, and the answer to a fill of this size stays well under gRPC's 2 GiB.
MAX_FILLED_BYTES = 256 * 2**20
_STRING_BYTES = 24  # of TensorFlow's string object, beside a long string's bytes


def from_proto(proto: TensorProto) -> np.ndarray:
    """Decode a TensorProto.

    Too few values are filled up with the last one, no values with zeros, and too many are ignored, as TensorFlow does.

    Raises:
        ValueError: the message is no valid tensor.
        ServingError: RESOURCE_EXHAUSTED where filling up would take more than MAX_FILLED_BYTES.
    """
    element = dtypes.BY_ENUM.get(proto.dtype)
    if element is None or proto.tensor_shape.unknown_rank:
        raise ValueError("no known element type or rank")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if any(size < 0 for size in shape):
        raise ValueError("negative dimension")
    count = math.prod(shape)
    if proto.tensor_content:
        return _from_content(proto.tensor_content, element, count).reshape(shape)
    values = _from_field(proto, element)[:count]
    if len(values) < count:
        _check_fill(values, count, element, shape)
        tensor = np.zeros(count, element.numpy) if element.enum != dtypes.STRING else np.full(count, b"", object)
        tensor[: len(values)] = values
        if len(values):
            tensor[len(values) :] = values[-1]
        values = tensor
    return values.reshape(shape)


def to_proto(tensor: np.ndarray, as_content: bool, into: TensorProto) -> None:
    """Encode a tensor in the typed fields, or in `tensor_content` with --enable_serialization_as_tensor_content."""
    element = dtypes.BY_NUMPY[tensor.dtype]
    into.dtype = element.enum
    for size in tensor.shape:
        into.tensor_shape.dim.add(size=size)
    flat = tensor.ravel()
    if as_content:
        into.tensor_content = _string_content(flat) if element.enum == dtypes.STRING else flat.tobytes()
    elif element.field == "half_val":
        into.half_val.extend(flat.view(np.uint16).tolist())
    elif element.name in ("complex64", "complex128"):
        parts = flat.view(np.float32 if element.name == "complex64" else np.float64)
        getattr(into, element.field).extend(parts.tolist())
    else:
        getattr(into, element.field).extend(flat.tolist())


def _check_fill(values: np.ndarray, count: int, element: ElementType, shape: list[int]) -> None:
    each = element.numpy.itemsize
    if element.enum == dtypes.STRING:
        each = _STRING_BYTES + (len(values[-1]) if len(values) else 0)
    if count * each > MAX_FILLED_BYTES:
        raise ServingError(
            Code.RESOURCE_EXHAUSTED,
            f"A tensor of shape {shape} came with {len(values)} of its {count} values; filled up it would take "
            f"{count * each} bytes, {MAX_FILLED_BYTES} are allowed. Send all values, or a smaller shape.",
        )


def _from_field(proto: TensorProto, element: ElementType) -> np.ndarray:
    values = getattr(proto, element.field)
    if element.enum == dtypes.STRING:
        array = np.empty(len(values), dtype=object)
        array[:] = list(values)
        return array
    if element.field == "half_val":
        return np.array(values, dtype=np.uint32).astype(np.uint16).view(element.numpy)
    if element.name == "complex64":
        return np.array(values[: len(values) // 2 * 2], dtype=np.float32).view(np.complex64)
    if element.name == "complex128":
        return np.array(values[: len(values) // 2 * 2], dtype=np.float64).view(np.complex128)
    if element.field == "int_val" and element.enum != dtypes.BY_NUMPY[np.dtype(np.int32)].enum:
        return np.array(values, dtype=np.int32).astype(element.numpy)  # the field is int32: narrower types wrap
    return np.array(values, dtype=element.numpy)


def _from_content(content: bytes, element: ElementType, count: int) -> np.ndarray:
    if element.enum == dtypes.STRING:
        return _strings_from_content(content, count)
    if len(content) != count * element.numpy.itemsize:
        raise ValueError("tensor_content does not fit the shape")
    return np.frombuffer(content, dtype=element.numpy)


def _strings_from_content(content: bytes, count: int) -> np.ndarray:
    """Decode strings as TensorFlow packs them: all lengths as varints, then all the bytes."""
    position, lengths = 0, []
    for _ in range(count):
        length = shift = 0
        while True:
            if position >= len(content) or shift > 28:
                raise ValueError("tensor_content ends within a length")
            byte = content[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if position + sum(lengths) != len(content):
        raise ValueError("tensor_content does not fit the shape")
    strings = np.empty(count, dtype=object)
    for index, length in enumerate(lengths):
        strings[index] = content[position : position + length]
        position += length
    return strings


def _string_content(strings: np.ndarray) -> bytes:
    packed = bytearray()
    for string in strings:
        length = len(string)
        while length >= 0x80:
            packed.append(length & 0x7F | 0x80)
            length >>= 7
        packed.append(length)
    return bytes(packed) + b"".join(strings)
