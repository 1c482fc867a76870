"""--enable_batching, --model_config_file with labels, health, tensor_content: one server with all of it."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.embedded.batcher import BatchingRunner, BatchScheduler
from serving.embedded.batching_config import BatchingSettings
from serving.embedded.errors import Code, ServingError

CONFIG = """
model_config_list {{
  config {{
    name: "m" base_path: "{base}" model_platform: "tensorflow"
    model_version_policy {{ all {{}} }}
    version_labels {{ key: "stable" value: 1 }}
  }}
}}
"""


class Adder:
    """A runner that counts its runs and fails where a value is negative."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run(self, feeds: Any, fetches: Any, timeout_ms: int | None = None) -> list[np.ndarray]:
        x = feeds["x:0"]
        self.sizes.append(len(x))
        if (x < 0).any():
            raise ServingError(Code.INVALID_ARGUMENT, f"negative: {x.min()}")
        return [x + 1]


def test_requests_are_merged_and_padded_and_a_bad_one_fails_alone() -> None:
    settings = BatchingSettings(max_batch_size=8, batch_timeout_s=0.2, num_batch_threads=1, allowed_batch_sizes=(4, 8))
    scheduler, adder = BatchScheduler(settings), Adder()
    runner = BatchingRunner(adder, scheduler)
    with ThreadPoolExecutor(5) as pool:
        jobs = [pool.submit(runner.run, {"x:0": np.array([value])}, ["y:0"]) for value in (1, 2, -7, 3, 4)]
        for value, job in zip((1, 2, -7, 3, 4), jobs, strict=True):
            if value < 0:
                with pytest.raises(ServingError, match="negative: -7"):
                    job.result()
            else:
                assert job.result()[0].tolist() == [value + 1]
    scheduler.stop()
    assert adder.sizes[0] in (4, 8)
    assert set(adder.sizes) <= {4, 8}


def test_limits_of_batching() -> None:
    small = BatchScheduler(BatchingSettings(max_batch_size=4, num_batch_threads=1))
    with pytest.raises(ServingError, match="Task size 5 is larger than maximum input batch size 4"):
        BatchingRunner(Adder(), small).run({"x:0": np.zeros(5)}, ["y:0"])
    with pytest.raises(ServingError, match="at least one dimension"):
        BatchingRunner(Adder(), small).run({"x:0": np.float32(1)}, ["y:0"])
    with pytest.raises(ServingError, match="equal 0-dimension size"):
        BatchingRunner(Adder(), small).run({"x:0": np.zeros(1), "z:0": np.zeros(2)}, ["y:0"])
    small.stop()
    splitting = BatchScheduler(
        BatchingSettings(max_batch_size=4, num_batch_threads=1, enable_large_batch_splitting=True)
    )
    assert BatchingRunner(Adder(), splitting).run({"x:0": np.arange(10)}, ["y:0"])[0].tolist() == list(range(1, 11))
    splitting.stop()


def test_a_full_queue_is_unavailable() -> None:
    waiting = BatchScheduler(BatchingSettings(max_batch_size=2, batch_timeout_s=30, max_enqueued_batches=1))
    adder = Adder()
    first = waiting.submit(adder, {"x:0": np.array([1])}, ["y:0"])
    with pytest.raises(ServingError) as caught:
        waiting.submit(adder, {"x:0": np.array([1, 2])}, ["y:0"])
    assert caught.value.code == Code.UNAVAILABLE
    waiting.stop()  # runs what is queued
    assert first.result(0)[0].tolist() == [2]


@pytest.fixture(scope="module")
def batching(start: Any, toolbox: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("batching")
    toolbox.publish(root / "m", 1, addend=2)
    warmup = toolbox.publish(root / "m", 2, addend=3) / "assets.extra"
    warmup.mkdir()
    write_warmup(warmup / "tf_serving_warmup_requests")
    (root / "models.config").write_text(CONFIG.format(base=root / "m"))
    (root / "batching.config").write_text("max_batch_size { value: 16 } batch_timeout_micros { value: 5000 }")
    return start(
        f"--model_config_file={root / 'models.config'}",
        "--model_config_file_poll_wait_seconds=1",
        "--allow_version_labels_for_unavailable_models",
        "--enable_batching=true",
        f"--batching_parameters_file={root / 'batching.config'}",
        "--enable_grpc_healthcheck_service",
        "--enable_serialization_as_tensor_content",
        "--num_load_threads=2",
    )


def write_warmup(file: Path) -> None:
    from tensorflow_serving.apis import prediction_log_pb2

    entry = prediction_log_pb2.PredictionLog()
    entry.predict_log.request.model_spec.name = "m"
    entry.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32([1, 2])))
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(entry.SerializeToString())


def test_one_bad_image_among_good_ones(batching: Any) -> None:
    def body(data: bytes) -> dict[str, Any]:
        return {"signature_name": "decode", "instances": [{"b64": base64.b64encode(data).decode()}]}

    images = []
    for height in range(1, 17):
        stream = io.BytesIO()
        Image.new("L", (3, height)).save(stream, "PNG")
        images.append(stream.getvalue())
    images[7] = b"broken"
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda data: batching.post("m:predict", body(data)), images))
    assert [answer.status_code for answer in answers] == [200] * 7 + [400] + [200] * 8
    assert "Unknown image file format" in answers[7].json()["error"]
    good = [answer.json()["predictions"][0] for answer in answers if answer.status_code == 200]
    assert good == [height for height in range(1, 17) if height != 8]


def test_all_versions_labels_and_warm_up(batching: Any) -> None:
    assert batching.states() == {1: "AVAILABLE", 2: "AVAILABLE"}
    assert batching.post("m:predict", {"instances": [0.0]}).json() == {"predictions": [3.0]}
    assert batching.post("m/labels/stable:predict", {"instances": [0.0]}).json() == {"predictions": [2.0]}
    assert "Replayed 1 warm-up requests of m" in batching.log.read_text()


def test_tensor_content_and_health(batching: Any) -> None:
    message = predict_pb2.PredictRequest()
    message.model_spec.name, message.model_spec.version_label = "m", "stable"
    message.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32([1, 2])))
    with batching.channel() as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        response = stub.Predict(message, timeout=60)
        assert response.outputs["y"].tensor_content == np.float32([2.5, 3]).tobytes()
        assert response.model_spec.version.value == 1
        message.model_spec.signature_name = "strings"
        del message.inputs["x"]
        message.inputs["s"].CopyFrom(tf.make_tensor_proto([b"A" * 300, b""]))
        content = stub.Predict(message, timeout=60).outputs["text"].tensor_content
        assert content == b"\xac\x02\x00" + b"a" * 300
        message.inputs["s"].ClearField("string_val")
        message.inputs["s"].tensor_content = content
        assert stub.Predict(message, timeout=60).outputs["raw_bytes"].tensor_content == content
        health = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert health(b"", timeout=60) == b"\x08\x01"


def test_a_changed_config_file_is_applied(batching: Any, toolbox: Any) -> None:
    file = Path(next(flag.split("=", 1)[1] for flag in batching.process.args if "model_config_file=" in flag))
    file.write_text(file.read_text().replace("value: 1", "value: 2"))
    answer = {"predictions": [3.0]}
    toolbox.wait_until(lambda: batching.post("m/labels/stable:predict", {"instances": [0.0]}).json() == answer)
