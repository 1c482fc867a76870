"""What is asked of the gRPC face beyond the contract."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2, predict_pb2

from serving.embedded.flags import cpu_count


def request(signature: str, alias: str, value: float) -> predict_pb2.PredictRequest:
    message = predict_pb2.PredictRequest()
    message.model_spec.name, message.model_spec.signature_name = "m", signature
    message.inputs[alias].CopyFrom(tf.make_tensor_proto(np.float32([value])))
    return message


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
