"""Small SavedModels and real server processes for the tests of the embedded server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

REPO = Path(__file__).resolve().parents[3]
START_TIMEOUT_S = 90.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(check: Callable[[], Any], timeout_s: float = 60.0, what: str = "the condition") -> Any:
    """Poll until `check` returns something true, and return that."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        value = check()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {timeout_s} s for {what} in vain")


def save_model(directory: Path, addend: float = 2.0) -> Path:
    """Write a SavedModel with a signature for every rule that is tested; `addend` tells versions apart."""
    import tensorflow as tf

    def spec(dtype: Any, name: str, shape: Any = (None,)) -> Any:
        return tf.TensorSpec(shape, dtype, name)

    module = tf.Module()
    module.addend = tf.Variable(addend, dtype=tf.float32)
    classes = tf.constant([b"cat", b"dog"])

    @tf.function(input_signature=[spec(tf.float32, "x", None)])
    def halve(x: Any) -> Any:
        return {"y": x * 0.5 + module.addend}

    @tf.function(input_signature=[spec(tf.float32, "a"), spec(tf.int32, "b")])
    def two(a: Any, b: Any) -> Any:
        return {"total": a + tf.cast(b, tf.float32), "twice": b * 2}

    @tf.function(input_signature=[spec(tf.string, "s", None)])
    def strings(s: Any) -> Any:
        return {"text": tf.strings.lower(s), "raw_bytes": tf.identity(s)}

    @tf.function(input_signature=[spec(tf.string, "image_bytes")])
    def decode(image_bytes: Any) -> Any:
        def height(data: Any) -> Any:
            return tf.shape(tf.io.decode_image(data, channels=1, expand_animations=False))[0]

        return {"height": tf.map_fn(height, image_bytes, fn_output_signature=tf.int32)}

    @tf.function(input_signature=[spec(tf.string, "inputs")])
    def classify(inputs: Any) -> Any:
        x = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature((), tf.float32, 0.25)})["x"]
        labels = tf.tile(classes[tf.newaxis], [tf.size(inputs), 1])
        return {"classes": labels, "scores": tf.stack([x, 1.0 - x], axis=1)}

    @tf.function(input_signature=[spec(tf.string, "inputs")])
    def regress(inputs: Any) -> Any:
        x = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature((), tf.float32, 0.25)})["x"]
        return {"outputs": x * 10.0}

    @tf.function(input_signature=[spec(tf.float32, "steps")])
    def slow(steps: Any) -> Any:
        matrix = tf.ones((128, 128)) / 128.0
        end = tf.while_loop(
            lambda i, m: i < steps[0], lambda i, m: (i + 1.0, tf.linalg.matmul(m, matrix)), (0.0, matrix)
        )
        return {"y": steps + 0.0 * tf.reduce_sum(end[1])}

    def echo(dtype: Any) -> Any:
        @tf.function(input_signature=[spec(dtype, "v", None)])
        def same(v: Any) -> Any:
            return {"v": tf.identity(v)}

        return same

    kinds = ("float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "bool", "half", "complex64")
    signatures = {f"echo_{kind}": echo(getattr(tf, kind)) for kind in kinds}
    signatures |= {
        "serving_default": halve,
        "two": two,
        "strings": strings,
        "decode": decode,
        "classify": classify,
        "regress": regress,
        "slow": slow,
    }
    for name, function in signatures.items():
        setattr(module, name, function)
    tf.saved_model.save(module, str(directory), signatures=signatures)
    return directory


@dataclass
class Server:
    """A server process and ways to reach it."""

    process: subprocess.Popen[str]
    port: int
    rest_port: int
    log: Path
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.rest_port}"

    def post(self, path: str, body: Any, **options: Any) -> requests.Response:
        """POST a dict as JSON, or bytes as they are."""
        kind = "data" if isinstance(body, bytes | str) else "json"
        return self.session.post(f"{self.base}/v1/models/{path}", **{kind: body}, timeout=60, **options)

    def get(self, path: str) -> requests.Response:
        return self.session.get(f"{self.base}{path}", timeout=60)

    def states(self, model: str = "m") -> dict[int, str]:
        """The state of every version."""
        answer = self.get(f"/v1/models/{model}")
        return {int(entry["version"]): entry["state"] for entry in answer.json().get("model_version_status", [])}

    def channel(self) -> grpc.Channel:
        limits = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        return grpc.insecure_channel(f"127.0.0.1:{self.port}", options=limits)

    def stop(self) -> int:
        """Stop it the polite way and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def launch(log: Path, *flags: str) -> Server:
    """Start a server process and return at once."""
    port, rest_port = free_port(), free_port()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.embedded", f"--port={port}", f"--rest_api_port={rest_port}", *flags],
            cwd=REPO,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
    return Server(process, port, rest_port, log)


def await_ready(server: Server) -> Server:
    """Wait for the server's line that says it is ready."""

    def ready() -> bool:
        text = server.log.read_text()
        if server.process.poll() is not None:
            raise AssertionError(f"the server ended with {server.process.returncode}:\n{text}")
        return "Serving " in text

    wait_until(ready, START_TIMEOUT_S, "the server's start")
    return server


@pytest.fixture(scope="session")
def model_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the SavedModels `2` (adds 2) and `3` (adds 3), made once."""
    store = tmp_path_factory.mktemp("store")
    save_model(store / "2", 2.0)
    save_model(store / "3", 3.0)
    return store


@dataclass
class Toolbox:
    """What the tests need beyond fixtures; test folders are no packages, so nothing can be imported from here."""

    store: Path

    @staticmethod
    def wait_until(check: Callable[[], Any], what: str = "the condition") -> Any:
        return wait_until(check, what=what)

    @staticmethod
    def launch(log: Path, *flags: str) -> Server:
        """Start a server that is not expected to get ready."""
        return launch(log, *flags)

    def publish(self, base: Path, version: int, addend: int = 2) -> Path:
        """Copy a SavedModel into place as training does: beside first, then renamed."""
        base.mkdir(parents=True, exist_ok=True)
        beside = base / f".{version}.new"
        shutil.copytree(self.store / str(addend), beside)
        return beside.rename(base / str(version))


@pytest.fixture(scope="session")
def toolbox(model_store: Path) -> Toolbox:
    return Toolbox(model_store)


class Servers:
    """Starts servers, and ends those it started."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[Server] = []

    def __call__(self, *flags: str) -> Server:
        server = launch(self._logs / f"server-{len(self._running)}.log", *flags)
        self._running.append(server)
        return await_ready(server)

    def end(self) -> None:
        for server in self._running:
            server.session.close()
            if server.process.poll() is None:
                server.process.kill()
            server.process.wait(30)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Start servers that end with the module."""
    servers = Servers(tmp_path_factory.mktemp("logs"))
    yield servers
    servers.end()


@pytest.fixture(scope="session")
def server(toolbox: Toolbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with model `m`, version 1, shared by all tests that change nothing in it."""
    base = tmp_path_factory.mktemp("models") / "m"
    toolbox.publish(base, 1)
    config = base.parent / "monitoring.config"
    config.write_text("prometheus_config { enable: true }\n")
    servers = Servers(tmp_path_factory.mktemp("logs"))
    try:
        yield servers("--model_name=m", f"--model_base_path={base}", f"--monitoring_config_file={config}")
    finally:
        servers.end()


@pytest.fixture(scope="module")
def prediction_stub(server: Server) -> Iterator[Any]:
    with server.channel() as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def model_stub(server: Server) -> Iterator[Any]:
    with server.channel() as channel:
        yield model_service_pb2_grpc.ModelServiceStub(channel)
