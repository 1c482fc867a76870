"""The gRPC face of a real server process."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.embedded.flags import cpu_count


def request(signature: str = "", model: str = "m", **inputs: Any) -> predict_pb2.PredictRequest:
    message = predict_pb2.PredictRequest()
    message.model_spec.name = model
    message.model_spec.signature_name = signature
    for alias, value in inputs.items():
        message.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    return message


def failure(call: Any, message: Any, **options: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=options.get("timeout", 60))
    return caught.value.code(), caught.value.details()


def example(**floats: float) -> tf.train.Example:
    features = {name: tf.train.Feature(float_list=tf.train.FloatList(value=[value])) for name, value in floats.items()}
    return tf.train.Example(features=tf.train.Features(feature=features))


def test_predict(prediction_stub: Any) -> None:
    response = prediction_stub.Predict(request(x=np.float32([1, 2.5])), timeout=60)
    assert list(response.outputs["y"].float_val) == [2.5, 3.25]
    assert not response.outputs["y"].tensor_content
    assert (response.model_spec.name, response.model_spec.version.value) == ("m", 1)
    assert response.model_spec.signature_name == "serving_default"


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("float64", np.float64), ("int8", np.int8), ("int16", np.int16), ("int32", np.int32), ("int64", np.int64),
     ("uint8", np.uint8), ("uint32", np.uint32), ("uint64", np.uint64), ("bool", np.bool_), ("half", np.float16),
     ("complex64", np.complex64)],
)  # fmt: skip
def test_every_type_comes_back(prediction_stub: Any, kind: str, dtype: Any) -> None:
    values = np.array([[1, 0, 3], [4, 5, 6]]).astype(dtype)
    message = request(f"echo_{kind}")
    packed = message.inputs["v"]
    packed.dtype = tf.as_dtype(dtype).as_datatype_enum
    packed.tensor_shape.CopyFrom(tf.TensorShape(values.shape).as_proto())
    packed.tensor_content = values.tobytes()
    response = prediction_stub.Predict(message, timeout=60)
    output = response.outputs["v"]
    assert not output.tensor_content
    np.testing.assert_array_equal(tf.make_ndarray(output), values)
    message.inputs["v"].CopyFrom(output)  # now in the typed fields
    again = prediction_stub.Predict(message, timeout=60)
    np.testing.assert_array_equal(tf.make_ndarray(again.outputs["v"]), values)


def test_short_value_lists_are_filled_up(prediction_stub: Any) -> None:
    message = request()
    proto = message.inputs["x"]
    proto.dtype = tf.float32.as_datatype_enum
    proto.tensor_shape.dim.add(size=3)
    assert list(prediction_stub.Predict(message, timeout=60).outputs["y"].float_val) == [2.0, 2.0, 2.0]
    proto.float_val.extend([2.0, 4.0])
    assert list(prediction_stub.Predict(message, timeout=60).outputs["y"].float_val) == [3.0, 4.0, 4.0]


def test_strings_and_output_filter(prediction_stub: Any) -> None:
    message = request("strings", s=[b"Ab", b"\xff"])
    message.output_filter.append("text")
    response = prediction_stub.Predict(message, timeout=60)
    assert list(response.outputs) == ["text"]
    assert list(response.outputs["text"].string_val) == [b"ab", b"\xff"]
    message.output_filter.append("text")
    assert failure(prediction_stub.Predict, message) == (
        grpc.StatusCode.INVALID_ARGUMENT, "duplicate output tensor alias: text")  # fmt: skip
    message.output_filter[1] = "zz"
    assert failure(prediction_stub.Predict, message)[1] == (
        "output tensor alias not found in signature: zz Outputs expected to be in the set {raw_bytes,text}."
    )


def test_errors(prediction_stub: Any) -> None:
    codes = grpc.StatusCode
    x = np.float32([1])
    assert failure(prediction_stub.Predict, request(model="nope", x=x)) == (
        codes.NOT_FOUND, "Servable not found for request: Latest(nope)")  # fmt: skip
    labelled = request(x=x)
    labelled.model_spec.version_label = "no"
    assert failure(prediction_stub.Predict, labelled) == (
        codes.INVALID_ARGUMENT, "Unrecognized servable version label: no")  # fmt: skip
    assert failure(prediction_stub.Predict, request("no", x=x)) == (
        codes.FAILED_PRECONDITION, 'Serving signature key "no" not found.')  # fmt: skip
    assert failure(prediction_stub.Predict, predict_pb2.PredictRequest()) == (
        codes.INVALID_ARGUMENT,
        "Missing ModelSpec",
    )
    assert failure(prediction_stub.Predict, request(model="", x=x)) == (
        codes.INVALID_ARGUMENT, "ModelSpec has no name specified.")  # fmt: skip
    assert failure(prediction_stub.Predict, request(x=x, zz=x)) == (
        codes.INVALID_ARGUMENT,
        "input size does not match signature: 2!=1 len({x,zz}) != len({x}). Sent extra: {zz}. "
        "Missing but required: {}.",
    )
    code, text = failure(prediction_stub.Predict, request(x=[b"a"]))
    assert code == codes.INVALID_ARGUMENT
    assert "Expects arg[0] to be float but string is provided" in text
    broken = request(x=x)
    broken.inputs["x"].tensor_content = b"abc"
    assert failure(prediction_stub.Predict, broken) == (codes.INVALID_ARGUMENT, "tensor parsing error: x")


def test_a_long_message_is_cut(prediction_stub: Any) -> None:
    code, text = failure(prediction_stub.Predict, request("x" * 3000, x=np.float32([1])))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert text.endswith("...TRUNCATED")
    assert len(text) == 1024 + len("...TRUNCATED")


def test_a_message_of_more_than_4_mb(prediction_stub: Any) -> None:
    values = np.ones((3, 1_000_000), np.float32)
    response = prediction_stub.Predict(request(x=values), timeout=120)
    assert tf.make_ndarray(response.outputs["y"]).sum() == 7_500_000


def test_deadline(prediction_stub: Any) -> None:
    assert failure(prediction_stub.Predict, request("slow", steps=np.float32([1e7])), timeout=0.5)[0] == (
        grpc.StatusCode.DEADLINE_EXCEEDED
    )
    assert prediction_stub.Predict(request(x=np.float32([1])), timeout=60).outputs["y"].float_val[0] == 2.5


def test_status_does_not_wait_behind_predictions(
    server: Any, prediction_stub: Any, model_stub: Any, toolbox: Any
) -> None:
    endless = request("slow", steps=np.float32([1e9]))
    busy = [prediction_stub.Predict.future(endless, timeout=10) for _ in range(4 * cpu_count())]

    def every_worker_is_busy() -> bool:
        try:
            prediction_stub.Predict(request(x=np.float32([1])), timeout=0.5)
        except grpc.RpcError:
            return True
        return False

    toolbox.wait_until(every_worker_is_busy)
    assert server.states() == {1: "AVAILABLE"}
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "m"
    assert model_stub.GetModelStatus(status, timeout=60).model_version_status[0].version == 1
    assert not any(call.done() for call in busy)
    assert {call.code() for call in busy} == {grpc.StatusCode.DEADLINE_EXCEEDED}


def test_classify_regress_and_both_at_once(prediction_stub: Any) -> None:
    classify = classification_pb2.ClassificationRequest()
    classify.model_spec.name, classify.model_spec.signature_name = "m", "classify"
    assert failure(prediction_stub.Classify, classify) == (grpc.StatusCode.INVALID_ARGUMENT, "Input is empty.")
    classify.input.example_list.examples.extend([example(x=0.5), example()])
    result = prediction_stub.Classify(classify, timeout=60).result
    assert [[(c.label, c.score) for c in row.classes] for row in result.classifications] == [
        [("cat", 0.5), ("dog", 0.5)], [("cat", 0.25), ("dog", 0.75)]]  # fmt: skip

    regress = regression_pb2.RegressionRequest()
    regress.model_spec.name, regress.model_spec.signature_name = "m", "regress"
    regress.input.example_list_with_context.context.CopyFrom(example(x=0.5))
    regress.input.example_list_with_context.examples.append(example())
    response = prediction_stub.Regress(regress, timeout=60)
    assert [row.value for row in response.result.regressions] == [5.0]
    assert response.model_spec.signature_name == "regress"

    both = inference_pb2.MultiInferenceRequest()
    both.input.CopyFrom(classify.input)
    both.tasks.add(method_name="tensorflow/serving/regress").model_spec.CopyFrom(regress.model_spec)
    single = prediction_stub.MultiInference(both, timeout=60).results[0]
    assert [row.value for row in single.regression_result.regressions] == [5.0, 2.5]
    both.tasks.add(method_name="tensorflow/serving/regress").model_spec.CopyFrom(regress.model_spec)
    assert failure(prediction_stub.MultiInference, both)[1] == "Duplicate evaluation of signature: regress"
    del both.tasks[1]
    both.tasks[0].method_name = "x"
    assert failure(prediction_stub.MultiInference, both)[0] == grpc.StatusCode.UNIMPLEMENTED


def test_metadata_and_status(prediction_stub: Any, model_stub: Any) -> None:
    ask = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    ask.model_spec.name = "m"
    answer = prediction_stub.GetModelMetadata(ask, timeout=60)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "two", "__saved_model_init_op"} <= set(signatures.signature_def)
    ask.metadata_field.append("x")
    assert failure(prediction_stub.GetModelMetadata, ask)[0] == grpc.StatusCode.INVALID_ARGUMENT

    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "m"
    entry = model_stub.GetModelStatus(status, timeout=60).model_version_status[0]
    assert (entry.version, entry.state, entry.status.error_code) == (1, 30, 0)
    status.model_spec.version.value = 7
    assert failure(model_stub.GetModelStatus, status) == (
        grpc.StatusCode.NOT_FOUND, "Could not find version 7 of model m")  # fmt: skip
