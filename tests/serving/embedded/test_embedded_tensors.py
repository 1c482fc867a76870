"""TensorProto to numpy and back, without a server."""

from __future__ import annotations

import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.tensor_pb2 import TensorProto

from serving.embedded import dtypes
from serving.embedded.errors import Code, ServingError
from serving.embedded.proto_tensors import MAX_FILLED_BYTES, from_proto


def proto(dtype: tf.DType, *shape: int, **values: object) -> TensorProto:
    message = TensorProto(dtype=dtype.as_datatype_enum, **values)
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    return message


@pytest.mark.parametrize(
    "message",
    [
        proto(tf.float32, 2**33, float_val=[1.0]),
        proto(tf.float32, 2**62, 2**62),
        proto(tf.string, 2**30),
        proto(tf.string, 1000, string_val=[bytes(2**20)]),
    ],
)
def test_a_few_bytes_cannot_ask_for_all_memory(message: TensorProto) -> None:
    with pytest.raises(ServingError, match="Send all values, or a smaller shape") as caught:
        from_proto(message)
    assert caught.value.code == Code.RESOURCE_EXHAUSTED


def test_one_value_stands_for_a_whole_tensor_of_moderate_size() -> None:
    tensor = from_proto(proto(tf.float32, 32, 224, 224, 3, float_val=[0.5]))
    assert tensor.shape == (32, 224, 224, 3)
    assert tensor.nbytes < MAX_FILLED_BYTES
    assert (tensor == 0.5).all()


def test_element_types_are_numbered_as_in_types_proto() -> None:
    for enum, element in dtypes.BY_ENUM.items():
        assert types_pb2.DataType.Name(enum) == f"DT_{element.name.upper()}"
        assert element.numpy == tf.dtypes.as_dtype(enum).as_numpy_dtype
    assert dtypes.name_of(types_pb2.DT_RESOURCE) == "resource"
    assert dtypes.name_of(12345) == "unknown dtype enum (12345)"


def test_what_was_really_sent_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.embedded.proto_tensors.MAX_FILLED_BYTES", 100)
    assert from_proto(proto(tf.uint8, 101, tensor_content=bytes(101))).size == 101
    assert from_proto(proto(tf.int32, 101, int_val=range(101))).tolist() == list(range(101))
