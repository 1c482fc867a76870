"""What is asked of the gRPC face beyond the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2, predict_pb2, prediction_service_pb2_grpc

from serving.embedded.flags import cpu_count


def request(signature: str, alias: str, value: float) -> predict_pb2.PredictRequest:
    message = predict_pb2.PredictRequest()
    message.model_spec.name, message.model_spec.signature_name = "m", signature
    message.inputs[alias].CopyFrom(tf.make_tensor_proto(np.float32([value])))
    return message


@pytest.mark.parametrize("batching", [False, True], ids=["plain", "batching"])
def test_a_signature_without_a_tensor_is_an_error_and_harms_nobody(
    start: Any, toolbox: Any, tmp_path: Path, batching: bool
) -> None:
    """Every SavedModel of TensorFlow 2 has one: its init op."""
    toolbox.publish(tmp_path / "m", 1)
    server = start("--model_name=m", f"--model_base_path={tmp_path / 'm'}", f"--enable_batching={batching}")
    message = predict_pb2.PredictRequest()
    message.model_spec.name, message.model_spec.signature_name = "m", "__saved_model_init_op"
    with server.channel() as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Predict(message, timeout=60)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert list(stub.Predict(request("", "x", 1), timeout=60).outputs["y"].float_val) == [2.5]


def test_status_does_not_wait_behind_predictions(
    server: Any, prediction_stub: Any, model_stub: Any, toolbox: Any
) -> None:
    endless = request("slow", "steps", 1e9)
    busy = [prediction_stub.Predict.future(endless, timeout=10) for _ in range(4 * cpu_count())]

    def every_worker_is_busy() -> bool:
        try:
            prediction_stub.Predict(request("", "x", 1), timeout=0.5)
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
