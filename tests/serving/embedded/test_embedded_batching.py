"""--enable_batching, --model_config_file with labels, health, tensor_content: one server with all of it."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fuzz
import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.embedded.batcher import BatchingRunner, BatchScheduler
from serving.embedded.batching_config import BatchingSettings
from serving.embedded.errors import Code, ServingError

EXECUTOR = ThreadPoolExecutor(2)
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
    """A runner that keeps what it was given, fails where a value is negative, and can be held."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.timeouts: list[int | None] = []
        self.entered, self.released = threading.Event(), threading.Event()
        self.released.set()

    def run(self, feeds: Any, fetches: Any, timeout_ms: int | None = None) -> list[np.ndarray]:
        x = feeds["x:0"]
        self.runs.append(x.tolist())
        self.timeouts.append(timeout_ms)
        self.entered.set()
        assert self.released.wait(60)
        if (x < 0).any():
            raise ServingError(Code.INVALID_ARGUMENT, f"negative: {x.min()}")
        return [x + 1]


def submit(scheduler: BatchScheduler, adder: Adder, *values: int) -> Future[list[np.ndarray]]:
    return scheduler.submit(adder, {"x:0": np.array(values)}, ["y:0"], deadline=None, finish=lambda results: results)


def batching_runner(**settings: Any) -> BatchingRunner:
    return BatchingRunner(Adder(), BatchScheduler(BatchingSettings(num_batch_threads=1, **settings)), EXECUTOR)


def test_requests_are_merged_and_padded_and_a_bad_one_fails_alone() -> None:
    scheduler = BatchScheduler(BatchingSettings(max_batch_size=8, num_batch_threads=1, allowed_batch_sizes=(1, 4, 8)))
    adder = Adder()
    adder.released.clear()
    first = submit(scheduler, adder, 0)
    assert adder.entered.wait(60)  # the only thread is busy; what comes now queues up
    values = (1, 2, -7, 3, 4)
    answers = [submit(scheduler, adder, value) for value in values]
    adder.released.set()
    assert first.result(60)[0].tolist() == [1]
    for value, answer in zip(values, answers, strict=True):
        if value < 0:
            with pytest.raises(ServingError, match="negative: -7"):
                answer.result(60)
        else:
            assert answer.result(60)[0].tolist() == [value + 1]
    alone = [[value] for value in values]
    assert adder.runs == [[0], [1, 2, -7, 3, 4, 1, 1, 1], *alone]


def test_where_nobody_waits_for_company_a_batch_leaves_work_for_the_other_threads() -> None:
    scheduler = BatchScheduler(BatchingSettings(max_batch_size=8, num_batch_threads=2))
    adder = Adder()
    adder.released.clear()
    answers = []
    for value in range(2):  # both threads are busy; what comes now queues up
        answers.append(submit(scheduler, adder, value))
        assert adder.entered.wait(60)
        adder.entered.clear()
    answers += [submit(scheduler, adder, value) for value in range(2, 8)]
    adder.released.set()
    assert [answer.result(60)[0].tolist() for answer in answers] == [[value + 1] for value in range(8)]
    assert max(map(len, adder.runs)) in (3, 4)  # of six, while nothing or one more runs


def test_limits_of_batching() -> None:
    small = batching_runner(max_batch_size=4)
    with pytest.raises(ServingError, match="Task size 5 is larger than maximum input batch size 4"):
        small.run({"x:0": np.zeros(5)}, ["y:0"])
    with pytest.raises(ServingError, match="at least one dimension"):
        small.run({"x:0": np.float32(1)}, ["y:0"])
    with pytest.raises(ServingError, match="equal 0th-dimension size"):
        small.run({"x:0": np.zeros(1), "z:0": np.zeros(2)}, ["y:0"])


def test_a_large_request_is_split() -> None:
    splitting = batching_runner(max_batch_size=4, enable_large_batch_splitting=True)
    feeds, expected = {"x:0": np.arange(10)}, list(range(1, 11))
    assert splitting.run(feeds, ["y:0"])[0].tolist() == expected
    assert asyncio.run(splitting.run_async(feeds, ["y:0"], None, lambda results: results[0].tolist())) == expected


def test_a_full_queue_is_unavailable() -> None:
    waiting = BatchScheduler(BatchingSettings(max_batch_size=2, batch_timeout_s=3600, max_enqueued_batches=1))
    adder = Adder()
    first = submit(waiting, adder, 1)
    with pytest.raises(ServingError) as caught:
        submit(waiting, adder, 1, 2)
    assert caught.value.code == Code.UNAVAILABLE
    submit(waiting, adder, 5)  # makes the batch full, so that it runs now
    assert first.result(60)[0].tolist() == [2]


def run_on_a_loop(runner: BatchingRunner, feeds: Any, fetches: Any, timeout_ms: int) -> list[np.ndarray]:
    return asyncio.run(runner.run_async(feeds, fetches, timeout_ms, lambda results: results))


@pytest.mark.parametrize("waits", [BatchingRunner.run, run_on_a_loop])
def test_a_timeout_says_whether_the_request_was_still_waiting(waits: Callable[..., Any]) -> None:
    adder = Adder()
    adder.released.clear()
    runner = BatchingRunner(adder, BatchScheduler(BatchingSettings(num_batch_threads=1)), EXECUTOR)
    for code in (Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED):  # the second finds the only thread busy
        with pytest.raises(ServingError) as caught:
            waits(runner, {"x:0": np.array([1])}, ["y:0"], 2000)
        assert caught.value.code == code
    adder.released.set()
    assert 0 < adder.timeouts[0] <= 2000  # the graph does not run on for nobody
    runner.run({"x:0": np.array([1])}, ["y:0"])
    assert adder.timeouts[1:] == [None]


def test_an_answer_that_cannot_be_written_fails_alone() -> None:
    scheduler = BatchScheduler(BatchingSettings(num_batch_threads=1))
    adder = Adder()
    adder.released.clear()
    feeds = {"x:0": np.array([1])}
    submit(scheduler, adder, 0)
    assert adder.entered.wait(60)
    broken = scheduler.submit(adder, feeds, ["y:0"], None, lambda _: 1 // 0)
    good = scheduler.submit(adder, feeds, ["y:0"], None, lambda results: results[0].tolist())
    adder.released.set()
    with pytest.raises(ZeroDivisionError):
        broken.result(60)
    assert good.result(60) == [2]
    assert adder.runs == [[0], [1, 1]]


@pytest.fixture(scope="module")
def batching(start: Any, toolbox: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("batching")
    toolbox.publish(root / "m", 1, addend=2)
    toolbox.publish(root / "m", 2, addend=3)
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
        "--enable_signature_method_name_check",
        "--rest_api_enable_cors_support",
        "--num_load_threads=2",
    )


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


def test_large_requests_that_fail_do_not_pile_up(batching: Any) -> None:
    body = b'{"signature_name": "decode", "instances": [{"b64": "%s"}]}' % (b"A" * 20 * 2**20)
    assert batching.post("m:predict", body).status_code == 400
    before = fuzz.usage(batching.process.pid).rss_mb
    for _ in range(12):
        assert batching.post("m:predict", body).status_code == 400
    assert fuzz.usage(batching.process.pid).rss_mb < before + 150, "12 of them are 400 MB and more"


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
        for service in (b"", b"\x0a\x0cModelService", b"\x0a\x11PredictionService"):
            assert health(service, timeout=60) == b"\x08\x01"
        named = b"\x0a\x01x"  # HealthCheckRequest{service: "x"}
        with pytest.raises(grpc.RpcError, match="service name unknown") as caught:
            health(named, timeout=60)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        for question, answer in ((b"", b"\x08\x01"), (named, b"\x08\x03")):  # SERVING, SERVICE_UNKNOWN
            stream = channel.unary_stream("/grpc.health.v1.Health/Watch")(question, timeout=60)
            assert next(stream) == answer
            stream.cancel()


def test_cors_headers_and_method_names(batching: Any) -> None:
    wanted = {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Methods": "POST, GET",
        "Access-Control-Allow-Headers": "Content-Type",
    }
    for answer in (
        batching.post("m:predict", {"instances": [0.0]}),
        batching.post("m:predict", b"{"),
        batching.get("/v1/models/m"),
        batching.session.options(f"{batching.base}/v1/models/m:predict", headers={"Origin": "http://a"}, timeout=60),
    ):
        assert wanted.items() <= answer.headers.items()
    answer = batching.post("m:classify", {"signature_name": "classify", "examples": [{}]})
    assert answer.json() == {
        "error": "Expected classification signature method_name to be tensorflow/serving/classify. "
        "Was: tensorflow/serving/predict"
    }


def test_a_changed_config_file_is_applied(batching: Any, toolbox: Any) -> None:
    """First it asks for what is not there yet; when that comes the file does not change again."""
    file = Path(next(flag.split("=", 1)[1] for flag in batching.process.args if "model_config_file=" in flag))
    file.write_text(file.read_text().replace("value: 1", "value: 5"))
    problem = (
        "not applied, trying again every 1 s: FAILED_PRECONDITION: Request to assign label to version 5 of model m"
    )
    toolbox.wait_until(lambda: problem in batching.log.read_text(), "the refusal")
    assert batching.post("m/labels/stable:predict", {"instances": [0.0]}).json() == {"predictions": [2.0]}
    toolbox.publish(file.parent / "m", 5, addend=3)
    answer = {"predictions": [3.0]}
    toolbox.wait_until(lambda: batching.post("m/labels/stable:predict", {"instances": [0.0]}).json() == answer)
    assert batching.log.read_text().count("not applied") == 1
    # What comes by gRPC lasts until the file is read again.
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(file.read_text().replace("stable", "other"), request.config)
    with batching.channel() as channel:
        model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=60)
    toolbox.wait_until(lambda: batching.post("m/labels/stable:predict", {"instances": [0.0]}).json() == answer)
    assert batching.post("m/labels/other:predict", {"instances": [0.0]}).status_code == 400
