"""A real HTTP server that speaks the REST contract on a free port and misbehaves on demand."""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from serving.client import ServingClient

USER, PASSWORD = "ada", "päss-wörd-of-32-characters-length"
NAMES = ("Ankle boot", "Bag", "Coat", "T-shirt/top")
REFUSED_MARK = b"cannot-decode-this"

Fault = Callable[["Handler"], None]


def make_png(value: int = 128, size: tuple[int, int] = (28, 28)) -> bytes:
    """A grey PNG."""
    buffer = io.BytesIO()
    Image.new("L", size, value).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class FakeServing:
    """What the server shall say, and what it was asked.

    Attributes:
        faults: played before the contract, one a POST.
        versions: version -> state; errors: version -> what kept it from loading.
        replicas: `versions` of several servers behind one address that takes them in turn; instead of `versions`.
        predicted_by: (signature, version, number of images) of every predict request that was answered.
    """

    versions: dict[int, str] = field(default_factory=lambda: {1: "AVAILABLE"})
    replicas: list[dict[int, str]] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    names: tuple[str, ...] = NAMES
    user: str = USER
    password: str = PASSWORD
    faults: deque[Fault] = field(default_factory=deque)
    before_predict: Callable[[], None] = lambda: None
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    predicted_by: list[tuple[str, int, int]] = field(default_factory=list)
    last_body: object = None
    connections: int = 0
    url: str = ""

    def client(self, **options: object) -> ServingClient:
        return ServingClient(self.url, **{"user": USER, "password": PASSWORD, **options})


class Handler(BaseHTTPRequestHandler):
    """TensorFlow Serving's REST face behind a password, as far as the client uses it."""

    protocol_version = "HTTP/1.1"
    fake: FakeServing

    def setup(self) -> None:
        super().setup()
        self.fake.connections += 1

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:  # noqa: N802
        self._handle(b"")

    def do_POST(self) -> None:  # noqa: N802
        self._handle(self.rfile.read(int(self.headers["Content-Length"])))

    def _handle(self, body: bytes) -> None:
        if self.fake.replicas:
            self.fake.versions = self.fake.replicas[len(self.fake.requests) % len(self.fake.replicas)]
        self.fake.requests.append((self.command, self.path, len(body)))
        if self.command == "POST" and self.fake.faults:
            self.fake.faults.popleft()(self)
            return
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != expected:
            self.answer(401, {"error": "who are you?"})
        elif self.command == "GET":
            self._get()
        else:
            self.fake.before_predict()
            self.fake.last_body = json.loads(body)
            self._predict(self.fake.last_body)

    def answer(self, status: int, value: object) -> None:
        self.answer_raw(status, json.dumps(value).encode(), "application/json")

    def answer_raw(self, status: int, body: bytes, content_type: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _get(self) -> None:
        if self.path.endswith("/metadata"):
            self._metadata()
        elif self.path == "/v1/models/fashion_mnist":
            states = sorted(self.fake.versions.items(), reverse=True)
            entries = [{"version": str(v), "state": state, "status": self._error(v)} for v, state in states]
            self.answer(200, {"model_version_status": entries})
        else:
            self.answer(404, {"error": "Could not find any versions of model " + self.path.split("/")[3]})

    def _error(self, version: int) -> dict[str, str]:
        message = self.fake.errors.get(version, "")
        return {"error_code": "UNKNOWN" if message else "OK", "error_message": message}

    def _metadata(self) -> None:
        parts = self.path.split("/")
        version = max(self.fake.versions)
        if "labels" in parts:
            label = parts[parts.index("labels") + 1]
            if label not in self.fake.labels:
                self.answer(400, {"error": f"Unrecognized servable version label: {label}"})
                return
            version = self.fake.labels[label]
            if self.fake.versions.get(version) != "AVAILABLE":
                self.answer(404, {"error": f"Servable not found for request: Specific(fashion_mnist, {version})"})
                return
        dims = [{"size": "-1", "name": ""}, {"size": "4", "name": ""}]
        info = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": "x:0"}
        free = {"dtype": "DT_STRING", "tensor_shape": {"dim": [], "unknown_rank": True}, "name": "y:0"}
        signature = {
            "inputs": {"image_bytes": free},
            "outputs": {"probabilities": info},
            "method_name": "tensorflow/serving/predict",
        }
        self.answer(
            200,
            {
                "model_spec": {"name": "fashion_mnist", "signature_name": "", "version": str(version)},
                "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
            },
        )

    def _predict(self, request: dict[str, object]) -> None:
        _, _, _, model, *which = self.path.removesuffix(":predict").split("/")
        if not which:
            version = max(number for number, state in self.fake.versions.items() if state == "AVAILABLE")
        else:
            version = self.fake.labels[which[1]] if which[0] == "labels" else int(which[1])
        if self.fake.versions.get(version) != "AVAILABLE":
            error = f"Servable not found for request: Specific({model}, {version})"
            self.answer(404, {"error": error})
            return
        signature = request["signature_name"]
        values = [base64.b64decode(item["b64"]) for item in next(iter(request["inputs"].values()))]
        if any(REFUSED_MARK in value for value in values):
            self.answer(400, {"error": "Input is not a PNG, JPEG, GIF or BMP"})
            return
        self.fake.predicted_by.append((signature, version, len(values)))
        self.answer(200, {"outputs": self._outputs(signature, values)})

    def _outputs(self, signature: str, values: list[bytes]) -> dict[str, object]:
        n, n_classes = len(values), len(self.fake.names)
        probabilities = np.stack([np.arange(1, n_classes + 1) ** 2.0] * n)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        best = n_classes - 1
        if signature == "classify":
            return {"classes": [self.fake.names[::-1]] * n, "scores": probabilities[:, ::-1].tolist()}
        if signature == "preprocess":
            view = {"b64": base64.b64encode(make_png()).decode()}
            return {"view_bytes": [view] * n, "box": [[0.1, -0.2, 0.9, 1.2]] * n}
        outputs = {"class_id": [best] * n, "class_name": [self.fake.names[best]] * n}
        outputs["probabilities"] = probabilities.tolist()
        if signature == "explain":
            cams = np.arange(n_classes * 9, dtype=float).reshape(n_classes, 3, 3) - 9
            outputs["cams"] = [cams.tolist()] * n
        if signature == "explain_fine":
            outputs |= {f"map_{size}": [np.eye(size).tolist()] * n for size in (2, 4)}
        return outputs


def status_fault(status: int, **headers: str) -> Fault:
    """Answer this status as a proxy does: a web page."""
    return lambda handler: handler.answer_raw(status, b"<html>busy</html>", "text/html", **headers)


def reset_fault(handler: Handler) -> None:
    """Drop the connection with a RST instead of an answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RD)
    handler.connection.close()


def cut_fault(handler: Handler) -> None:
    """Announce more bytes than come."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"outputs": {"class_id"')
    handler.close_connection = True


def slow_fault(seconds: float) -> Fault:
    """Answer too late."""

    def play(handler: Handler) -> None:
        time.sleep(seconds)
        handler.answer(200, {})

    return play


def body_fault(body: bytes, content_type: str = "application/json") -> Fault:
    """Answer 200 with this body."""
    return lambda handler: handler.answer_raw(200, body, content_type)


@pytest.fixture(scope="session")
def png() -> Callable[..., bytes]:
    """Makes grey PNG files."""
    return make_png


@pytest.fixture(scope="session")
def play() -> SimpleNamespace:
    """The faults by name."""
    return SimpleNamespace(
        status=status_fault, reset=reset_fault, cut=cut_fault, slow=slow_fault, body=body_fault, mark=REFUSED_MARK
    )


@pytest.fixture
def fake() -> Iterator[FakeServing]:
    state = FakeServing()
    handler = type("BoundHandler", (Handler,), {"fake": state})

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A dropped connection is part of the play."""

    server = Server(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()
