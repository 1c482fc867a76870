"""Clients at their worst, against a real server process: the good requests beside them are all answered rightly."""

from __future__ import annotations

import base64
import gzip
import json
import resource
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import fuzz
import grpc
import pytest
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.embedded.rest import WORKER_LIMIT

SHIPPED = Path(__file__).resolve().parents[3] / "serving" / "models" / "fashion_mnist"
GOOD = json.dumps({"instances": [3]}).encode()
GOOD_REQUEST = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD)
GOOD_ANSWER = {"predictions": [3.5]}


@pytest.fixture(scope="module")
def target(toolbox: Any, start: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with the small model `m` and the model that ships."""
    folder = tmp_path_factory.mktemp("chaos")
    toolbox.publish(folder / "m", 1)
    models = {"m": folder / "m", "fashion_mnist": SHIPPED}
    (folder / "models.config").write_text(
        "model_config_list {\n"
        + "\n".join(
            f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}'
            for name, path in models.items()
        )
        + "\n}"
    )
    return start(f"--model_config_file={folder / 'models.config'}", "--enable_model_warmup=false")


@pytest.fixture(autouse=True)
def _nobody_is_harmed(target: Any, toolbox: Any) -> Iterator[None]:
    before = fuzz.usage(target.process.pid)
    with fuzz.Bystander(target) as bystander:
        toolbox.wait_until(lambda: bystander.count >= 2)
        yield
    assert target.process.poll() is None
    assert not bystander.failures
    assert not fuzz.tracebacks(target.log.read_text(errors="replace"))
    toolbox.wait_until(
        lambda: fuzz.usage(target.process.pid).files <= before.files + 10, what="the connections to be closed"
    )


class Peak:
    """Watches how much memory the server takes meanwhile."""

    def __init__(self, pid: int) -> None:
        self._pid, self._stop, self._highest = pid, threading.Event(), 0.0
        self._first = fuzz.usage(pid).rss_mb

    @property
    def rise_mb(self) -> float:
        return self._highest - self._first

    def __enter__(self) -> Peak:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._highest = max(self._highest, fuzz.usage(self._pid).rss_mb)


def connect(server: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.rest_port), timeout=60)


def read_answer(connection: socket.socket) -> tuple[int, Any]:
    with fuzz.http.client.HTTPResponse(connection) as response:
        response.begin()
        return response.status, json.loads(response.read())


def at_once(work: Callable[[Any], Any], items: list[Any], threads: int = 16) -> list[Any]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def test_gzip_bombs_count_as_empty(target: Any) -> None:
    bomb = gzip.compress(bytes(101 * 2**20), 9)
    assert len(bomb) < 120_000

    def send(_: int) -> tuple[int, str]:
        with connect(target) as connection:
            head = b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
            connection.sendall(head % len(bomb) + bomb)
            status, document = read_answer(connection)
            return status, document["error"]

    assert set(at_once(send, list(range(12)))) == {(400, "JSON Parse error: The document is empty")}


def png(width: int, height: int) -> bytes:
    """A PNG that unpacks to nothing but zeros; only its beginning is there, which is all that may be looked at."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6)))


IMAGE_BOMBS = {
    "PNG": png(60_000, 60_000),
    "GIF": b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + bytes(6)
    + b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x02\x02\x4c\x01\x00;",
    "BMP": b"BM" + struct.pack("<IHHI", 10**6, 0, 0, 54)
    + struct.pack("<IiiHHIIiiII", 40, 40_000, 40_000, 1, 24, *[0] * 6),
    "JPEG": b"\xff\xd8\xff\xc0\x00\x11\x08" + struct.pack(">HH", 65_500, 65_500)
    + b"\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01",
}  # fmt: skip


@pytest.mark.parametrize("kind", IMAGE_BOMBS)
def test_image_bombs_are_refused_before_they_unfold(target: Any, kind: str) -> None:
    body = json.dumps({"instances": [{"b64": base64.b64encode(IMAGE_BOMBS[kind]).decode()}]}).encode()
    with Peak(target.process.pid) as peak:
        for answer in at_once(lambda _: target.post("fashion_mnist:predict", body), list(range(8)), 8):
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]
    assert peak.rise_mb < 500  # one of them unfolded would take 4.8 GB and more


@pytest.mark.parametrize(
    ("depth", "opening", "closing"),
    [(500_000, b"[", b"]"), (100_000, b'{"a":', b"}"), (100_000, b'[{"b64":', b"}]")],
    ids=["lists", "objects", "both"],
)
def test_nesting_without_end(target: Any, depth: int, opening: bytes, closing: bytes) -> None:
    for key in (b"instances", b"inputs"):
        answer = target.post("m:predict", b'{"%s": %s1%s}' % (key, opening * depth, closing * depth))
        assert answer.status_code == 400
        assert answer.json()["error"]


def test_a_large_body_is_taken_in_and_let_go(target: Any, toolbox: Any) -> None:
    before = fuzz.usage(target.process.pid).rss_mb
    piece = b" " * 2**20

    def body() -> Iterator[bytes]:
        yield from (piece for _ in range(200))
        yield GOOD

    answer = target.post("m:predict", b"".join(body()))  # with a length
    assert answer.json() == GOOD_ANSWER
    answer = target.session.post(f"{target.base}/v1/models/m:predict", data=body(), timeout=60)  # chunked
    assert answer.json() == GOOD_ANSWER
    toolbox.wait_until(lambda: fuzz.usage(target.process.pid).rss_mb < before + 100, what="the memory to come back")


def test_a_body_that_is_parsed_apart(target: Any) -> None:
    filling = b" " * WORKER_LIMIT
    for start, status in ((b"", 200), (b"{1", 400), (b'{"signature_name": "nope", "instances": [1]}', 400)):
        small = target.post("m:predict", start or GOOD)
        large = target.post("m:predict", (start or GOOD) + filling)
        assert small.status_code == large.status_code == status
        assert small.text == large.text
    assert target.post("nope:predict", GOOD + filling).status_code == 404


def test_large_requests_that_fail_do_not_pile_up(target: Any) -> None:
    """An error must not keep the request alive; the garbage collector may come late."""
    size = 50 * 2**20
    request = predict_request("nope", "x", 1, size // 4, bytes(size))
    with Peak(target.process.pid) as peak, target.channel() as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for _ in range(12):
            assert target.post("m:predict", b"x" * size).status_code == 400
            with pytest.raises(grpc.RpcError, match="not found"):
                stub.Predict(request, timeout=60)
    assert peak.rise_mb < 600, "12 of each are 1200 MB and more"


def test_slow_clients_hold_up_nobody(target: Any) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(target)) for _ in range(200)]
        for position in range(20):
            for connection in connections:
                connection.sendall(GOOD_REQUEST[position : position + 1])
            time.sleep(0.05)
        for connection in connections:
            connection.sendall(GOOD_REQUEST[20:-1])
        for connection in connections:
            connection.sendall(GOOD_REQUEST[-1:])
        assert [read_answer(connection) for connection in connections] == [(200, GOOD_ANSWER)] * 200


def test_500_connections_at_once(target: Any) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(target)) for _ in range(500)]
        for connection in connections:
            connection.sendall(GOOD_REQUEST)
        assert [read_answer(connection) for connection in connections] == [(200, GOOD_ANSWER)] * 500


def test_half_closed_connections_end(target: Any) -> None:
    for cut in (1, 30, len(GOOD_REQUEST) - 1, len(GOOD_REQUEST)):
        with connect(target) as connection:
            connection.sendall(GOOD_REQUEST[:cut])
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass  # an answer or none, but then the end


def test_clients_vanish_at_any_moment(target: Any) -> None:
    big = json.dumps({"instances": [0.1] * 500_000}).encode()
    big_request = b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(big) + big
    for data in (GOOD_REQUEST, big_request):
        for cut in (1, 40, len(data) // 2, len(data) - 1, len(data), len(data)):
            for wait_s in (0.0, 0.02):
                with connect(target) as connection:
                    connection.sendall(data[:cut])
                    time.sleep(wait_s)
                    # closing resets the connection and throws away what is on its way
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with connect(target) as connection:
        connection.sendall(big_request)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")  # and goes in the middle of the answer


def test_more_connections_than_files_may_be_open(target: Any, toolbox: Any) -> None:
    pid = target.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (fuzz.usage(pid).files + 20, hard))
    try:
        with ExitStack() as stack:
            connections = [stack.enter_context(connect(target)) for _ in range(60)]
            for connection in connections:
                with suppress(ConnectionError):  # the server may have closed it already
                    connection.sendall(GOOD_REQUEST)
            assert read_answer(connections[0]) == (200, GOOD_ANSWER)
        toolbox.wait_until(lambda: target.post("m:predict", GOOD).json() == GOOD_ANSWER)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def predict_request(signature: str, alias: str, dtype: int, size: int, content: bytes) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "m", signature
    tensor = request.inputs[alias]
    tensor.dtype, tensor.tensor_content = dtype, content
    tensor.tensor_shape.dim.add(size=size)
    return request


def test_grpc_messages_of_100_mb(target: Any, toolbox: Any) -> None:
    before = fuzz.usage(target.process.pid).rss_mb
    size = 100 * 2**20
    request = predict_request("", "x", 1, size // 4, bytes(size))
    with target.channel() as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        values = stub.Predict(request, timeout=60).outputs["y"].float_val
        assert (len(values), values[0], values[-1]) == (size // 4, 2.0, 2.0)
        del values
    toolbox.wait_until(lambda: fuzz.usage(target.process.pid).rss_mb < before + 200, what="the memory to come back")


def test_cancelled_calls_and_hopeless_deadlines(target: Any, toolbox: Any) -> None:
    threads = fuzz.usage(target.process.pid).threads
    work = predict_request("slow", "steps", 1, 1, struct.pack("<f", 300.0))
    codes: Counter[str] = Counter()
    with target.channel() as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        calls = [stub.Predict.future(work, timeout=0.001 * (1 + number % 5)) for number in range(400)]
        for number, call in enumerate([stub.Predict.future(work, timeout=60) for _ in range(400)]):
            if number % 7:
                time.sleep(0.0005)
            call.cancel()
            calls.append(call)
        for call in calls:
            try:
                call.result(timeout=60)
                codes["OK"] += 1
            except grpc.FutureCancelledError:
                codes["CANCELLED"] += 1
            except grpc.RpcError as error:
                codes[error.code().name] += 1
        assert codes.keys() <= {"OK", "CANCELLED", "DEADLINE_EXCEEDED"}
        assert codes["DEADLINE_EXCEEDED"] > 0
        assert stub.Predict(work, timeout=60).outputs["y"].float_val == [300.0]
    assert fuzz.usage(target.process.pid).threads <= threads + 16
