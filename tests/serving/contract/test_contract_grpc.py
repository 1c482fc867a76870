"""Predict and GetModelMetadata over gRPC."""

from __future__ import annotations

from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.predict_pb2 import PredictRequest

X = np.float32([1.0])


def proto(dtype: tf.DType, *shape: int, **values: Any) -> TensorProto:
    message = TensorProto(dtype=dtype.as_datatype_enum, **values)
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    return message


def test_predict(any_target: Any) -> None:
    response = any_target.prediction.Predict(any_target.predict("rules", x=np.float32([1, 2.5])), timeout=60)
    output = response.outputs["y"]
    assert list(output.float_val) == [2.5, 3.25]
    assert not output.tensor_content
    assert [dim.size for dim in output.tensor_shape.dim] == [2]
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("rules", 1, "serving_default")


@pytest.mark.parametrize(
    ("model", "choice", "value", "version"),
    [("every", "", 0, 3), ("every", "version", 2, 2), ("every", "version_label", "stable", 1),
     ("every", "version_label", "canary", 3), ("plain", "", 0, 3), ("two", "version", 2, 2), ("some", "version", 1, 1)],
)  # fmt: skip
def test_versions_and_labels(any_target: Any, model: str, choice: str, value: Any, version: int) -> None:
    message = any_target.predict(model, x=X)
    if choice == "version":
        message.model_spec.version.value = value
    elif choice:
        message.model_spec.version_label = value
    response = any_target.prediction.Predict(message, timeout=60)
    assert response.model_spec.version.value == version
    assert list(response.outputs["y"].float_val) == [1.0 + version]
    assert not response.model_spec.version_label


@pytest.mark.parametrize(
    ("kind", "field"),
    [("float32", "float_val"), ("float64", "double_val"), ("half", "half_val"), ("bfloat16", "half_val"),
     ("int8", "int_val"), ("int16", "int_val"), ("int32", "int_val"), ("int64", "int64_val"), ("uint8", "int_val"),
     ("uint16", "int_val"), ("uint32", "uint32_val"), ("uint64", "uint64_val"), ("bool", "bool_val"),
     ("complex64", "scomplex_val"), ("complex128", "dcomplex_val")],
)  # fmt: skip
def test_every_element_type(any_target: Any, kind: str, field: str) -> None:
    numpy_type = {"half": np.float16, "bfloat16": ml_dtypes.bfloat16, "bool": np.bool_}.get(kind) or getattr(np, kind)
    values = np.array([[1, 0, 3], [4, 5, 6]]).astype(numpy_type)
    packed = proto(getattr(tf, kind), 2, 3, tensor_content=values.tobytes())
    output = any_target.prediction.Predict(any_target.predict("rules", f"echo_{kind}", v=packed), timeout=60).outputs[
        "v"
    ]
    assert not output.tensor_content
    assert len(getattr(output, field)) == values.size * (2 if "complex" in kind else 1)
    np.testing.assert_array_equal(tf.make_ndarray(output), values)
    again = any_target.prediction.Predict(any_target.predict("rules", f"echo_{kind}", v=output), timeout=60)
    np.testing.assert_array_equal(tf.make_ndarray(again.outputs["v"]), values)


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (proto(tf.float32, 3), [0.0, 0.0, 0.0]),
        (proto(tf.float32, 3, float_val=[2.0, 4.0]), [2.0, 4.0, 4.0]),
        (proto(tf.float32, 2, float_val=[1.0, 2.0, 3.0]), [1.0, 2.0]),
        (proto(tf.float32, 0), []),
        (proto(tf.float32, float_val=[7.0]), [7.0]),
    ],
)
def test_value_lists_of_another_length(target: Any, value: TensorProto, answer: list[float]) -> None:
    response = target.prediction.Predict(target.predict("rules", "echo_float32", v=value), timeout=60)
    assert list(response.outputs["v"].float_val) == answer


def test_strings_are_bytes(any_target: Any) -> None:
    message = any_target.predict("rules", "text", s=[b"Ab", b"\xff", b""])
    response = any_target.prediction.Predict(message, timeout=60)
    assert list(response.outputs["text"].string_val) == [b"Ab", b"\xff", b""]


def test_output_filter(any_target: Any) -> None:
    message = any_target.predict("rules", "strings", s=[b"Ab"])
    message.output_filter.append("text")
    assert list(any_target.prediction.Predict(message, timeout=60).outputs) == ["text"]
    message.output_filter.append("text")
    assert any_target.failure(any_target.prediction.Predict, message) == (
        "INVALID_ARGUMENT", "duplicate output tensor alias: text")  # fmt: skip
    message.output_filter[1] = "zz"
    assert any_target.failure(any_target.prediction.Predict, message) == (
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: zz Outputs expected to be in the set {raw_bytes,text}.",
    )


def test_defaults_of_a_signature(any_target: Any) -> None:
    message = any_target.predict("rules", "two", a=np.float32([1, 2]))
    outputs = any_target.prediction.Predict(message, timeout=60).outputs
    assert list(outputs["total"].float_val) == [11.0, 22.0]
    message = any_target.predict("rules", "two", a=np.float32([1, 2]), b=np.int32([1, 1]))
    assert list(any_target.prediction.Predict(message, timeout=60).outputs["total"].float_val) == [2.0, 3.0]
    answer = any_target.post("rules:predict", {"signature_name": "two", "inputs": {"a": [1, 2]}})
    assert answer.json() == {"error": "Missing named input: b in 'inputs' object."}  # not over REST


@pytest.mark.parametrize(
    ("model", "signature", "inputs", "code", "error"),
    [
        ("nope", "", {"x": X}, "NOT_FOUND", "Servable not found for request: Latest(nope)"),
        ("", "", {"x": X}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ("rules", "no", {}, "FAILED_PRECONDITION", 'Serving signature key "no" not found.'),
        ("graph", "no", {}, "FAILED_PRECONDITION", 'Serving signature key "no" not found.'),
        ("rules", "", {"x": X, "zz": X}, "INVALID_ARGUMENT",
         "input size does not match signature: 2!=1 len({x,zz}) != len({x}). Sent extra: {zz}. "
         "Missing but required: {}."),
        ("rules", "", {}, "INVALID_ARGUMENT",
         "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}."),
        ("rules", "", {"zz": X}, "INVALID_ARGUMENT",
         "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default value provided. "
         "Inputs expected to be in the request {zz}, or default input alias set: "),
        ("rules", "", {"x": [b"a"]}, "INVALID_ARGUMENT", "Expects arg[0] to be float but string is provided"),
        ("rules", "", {"x": np.float64([1])}, "INVALID_ARGUMENT", "Expects arg[0] to be float but double is provided"),
        ("rules", "", {"x": proto(tf.float32, 3, tensor_content=b"ab")}, "INVALID_ARGUMENT", "tensor parsing error: x"),
        ("rules", "", {"x": proto(tf.float32, -1)}, "INVALID_ARGUMENT", "tensor parsing error: x"),
        ("rules", "", {"x": TensorProto()}, "INVALID_ARGUMENT", "tensor parsing error: x"),
        ("rules", "read", {"path": [b"/no/such/file"]}, "NOT_FOUND", "/no/such/file; No such file or directory"),
        ("rules", "read", {"path": [b"/"]}, "FAILED_PRECONDITION", "/; Is a directory"),
        ("rules", "decode", {"image_bytes": [b"no"]}, "INVALID_ARGUMENT", "Unknown image file format"),
    ],
)  # fmt: skip
def test_errors(any_target: Any, model: str, signature: str, inputs: Any, code: str, error: str) -> None:
    got, text = any_target.failure(any_target.prediction.Predict, any_target.predict(model, signature, **inputs))
    assert got == code
    assert error in text


def test_a_request_without_a_model_spec(target: Any) -> None:
    assert target.failure(target.prediction.Predict, PredictRequest()) == ("INVALID_ARGUMENT", "Missing ModelSpec")


def test_labels_and_versions_that_are_not_there(target: Any) -> None:
    message = target.predict("every", x=X)
    message.model_spec.version_label = "no"
    assert target.failure(target.prediction.Predict, message) == (
        "INVALID_ARGUMENT", "Unrecognized servable version label: no")  # fmt: skip
    message.model_spec.version_label = "later"  # a label that waits for its version
    assert target.failure(target.prediction.Predict, message) == (
        "NOT_FOUND", "Servable not found for request: Specific(every, 9)")  # fmt: skip
    message.model_spec.version.value = -4
    assert target.failure(target.prediction.Predict, message) == (
        "NOT_FOUND", "Servable not found for request: Specific(every, -4)")  # fmt: skip


def test_a_long_message_is_cut(target: Any) -> None:
    code, text = target.failure(target.prediction.Predict, target.predict("rules", "x" * 3000, x=X))
    assert code == "FAILED_PRECONDITION"
    assert text == 'Serving signature key "' + "x" * (1024 - 23) + "...TRUNCATED"


def test_more_than_4_mb(any_target: Any) -> None:
    values = np.ones((3, 1_000_000), np.float32)
    response = any_target.prediction.Predict(any_target.predict("rules", x=values), timeout=120)
    assert tf.make_ndarray(response.outputs["y"]).sum() == 7_500_000


def test_the_clients_deadline_is_kept(any_target: Any) -> None:
    slow = any_target.predict("rules", "slow", steps=np.float32([1e7]))
    code, _ = any_target.failure(any_target.prediction.Predict, slow, timeout=0.5)
    assert code == "DEADLINE_EXCEEDED"
    response = any_target.prediction.Predict(any_target.predict("rules", x=X), timeout=60)
    assert list(response.outputs["y"].float_val) == [2.5]


def test_metadata(any_target: Any) -> None:
    ask = GetModelMetadataRequest(metadata_field=["signature_def"])
    ask.model_spec.name = "rules"
    answer = any_target.prediction.GetModelMetadata(ask, timeout=60)
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("rules", 1)
    assert answer.metadata["signature_def"].type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    signatures = SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "two", "__saved_model_init_op"} <= set(signatures.signature_def)
    assert signatures.signature_def["serving_default"].inputs["x"].name == "serving_default_x:0"


@pytest.mark.parametrize(
    ("model", "fields", "code", "error"),
    [
        (None, ["signature_def"], "INVALID_ARGUMENT", "Missing ModelSpec"),
        ("nope", ["signature_def"], "NOT_FOUND", "Servable not found for request: Latest(nope)"),
        ("nope", [], "INVALID_ARGUMENT", "GetModelMetadataRequest must specify at least one metadata_field"),
        ("rules", ["signature_def", "x"], "INVALID_ARGUMENT", "Metadata field x is not supported"),
    ],
)
def test_metadata_errors(target: Any, model: str | None, fields: list[str], code: str, error: str) -> None:
    ask = GetModelMetadataRequest(metadata_field=fields)
    if model is not None:
        ask.model_spec.name = model
    assert target.failure(target.prediction.GetModelMetadata, ask) == (code, error)


def test_unknown_methods(target: Any) -> None:
    call = target.channel.unary_unary("/tensorflow.serving.PredictionService/Nope")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=60)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
