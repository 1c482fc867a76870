"""A small real HTTP server that answers as TensorFlow Serving does, or fails as servers fail, and a page before it."""

import base64
import hashlib
import io
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))  # for browser_steps, which the tests of the whole stack use too
CLASSES = [entry["label"] for entry in json.loads((ROOT / "ui/samples/index.json").read_text())][::2]
GRID = (3, 3)


class FakeServing:
    """Answers with made-up but consistent numbers: the same bytes always give the same ones.

    Attributes:
        mode: `good`, `slow`, `garbage`, or the status code to fail with.
        version: the version that is AVAILABLE.
        predicts: the signature names that were asked, in order.
        without: signatures the model lacks.
        winner: the class id that wins; None leaves it to the bytes.
        sent: every picture that came, in order.
        classes: names by class id.
        labels: versions by label.
        asked: the paths of all requests that were no predictions, in order.
    """

    def __init__(self) -> None:
        self.mode: str | int = "good"
        self.version = 1
        self.predicts: list[str] = []
        self.without: set[str] = set()
        self.winner: int | None = None
        self.sent: list[bytes] = []
        self.classes = list(CLASSES)
        self.labels: dict[str, int] = {}
        self.asked: list[str] = []
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def probabilities(self, data: bytes) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(data).digest()[:4], "big")
        logits = np.random.default_rng(seed).normal(0, 2, len(CLASSES))
        if self.winner is not None:
            logits[self.winner] = logits.max() + 2
        return np.exp(logits) / np.exp(logits).sum()

    def outputs(self, signature: str, values: list[bytes], class_ids: list[int] | None = None) -> dict[str, object]:
        if signature == "classify":
            values = [value[value.index(b"\x89PNG") :] for value in values]
        rows = np.stack([self.probabilities(value) for value in values])
        if signature == "classify":
            order = np.argsort(-rows, axis=1, kind="stable")
            return {
                "classes": [[self.classes[i] for i in line] for line in order],
                "scores": np.take_along_axis(rows, order, 1).tolist(),
            }
        if signature == "preprocess":
            buffer = io.BytesIO()
            Image.new("L", (28, 28), 128).save(buffer, "PNG")
            view = {"b64": base64.b64encode(buffer.getvalue()).decode()}
            return {"view_bytes": [view] * len(values), "box": [[0.0, 0.0, 1.0, 1.0]] * len(values)}
        best = rows.argmax(1)
        answer: dict[str, object] = {
            "class_id": best.tolist(),
            "class_name": [self.classes[i] for i in best],
            "probabilities": rows.tolist(),
        }
        if signature == "explain":
            cams = np.full((len(values), len(CLASSES), *GRID), -1.0)  # no evidence for any class but the best
            for row, class_id in enumerate(best):
                cams[row, class_id] = np.arange(9).reshape(GRID) - 2
            answer["cams"] = cams.tolist()
        if signature == "explain_fine":
            maps = np.zeros((len(values), 6, 6))  # one cell for the best class, nothing for another
            for row, asked in enumerate(class_ids or []):
                maps[row, 4, 1] = 5.0 if asked in (-1, best[row]) else 0.0
            answer["map_6"] = maps.tolist()
            answer["map_2"] = maps[:, ::3, ::3].tolist()
        return answer

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def _reply(self, status: int, body: object, kind: str = "application/json") -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _failed(self) -> bool:
                if fake._server is None:  # stopped: a connection kept open gets no answer any more
                    self.close_connection = True
                    return True
                if fake.mode == "slow":
                    time.sleep(1.0)
                elif fake.mode == "garbage":
                    self._reply(200, b"<html>a web page</html>", "text/html")
                    return True
                elif isinstance(fake.mode, int):
                    self._reply(fake.mode, {"error": f"made to fail with {fake.mode}"})
                    return True
                return False

            def do_GET(self) -> None:  # noqa: N802 - the name http.server asks for
                fake.asked.append(self.path)
                if self._failed():
                    return
                label = re.search(r"/labels/(.+)/metadata", self.path)
                if label is not None and label[1] not in fake.labels:
                    self._reply(400, {"error": f"Unrecognized servable version label: {label[1]}"})
                    return
                if self.path.endswith("/metadata"):
                    self._reply(200, _metadata(fake.labels[label[1]] if label else fake.version))
                    return
                status = {"error_code": "OK", "error_message": ""}
                entry = {"version": str(fake.version), "state": "AVAILABLE", "status": status}
                self._reply(200, {"model_version_status": [entry]})

            def do_POST(self) -> None:  # noqa: N802 - the name http.server asks for
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self._failed():
                    return
                asked = re.search(r"/versions/(\d+):predict", self.path)
                if asked is None or int(asked[1]) != fake.version:
                    self._reply(404, {"error": f"Servable not found for request: {self.path}"})
                    return
                signature = body["signature_name"]
                fake.predicts.append(signature)
                if signature in fake.without:
                    self._reply(400, {"error": f'Serving signature name: "{signature}" not found in signature def'})
                    return
                images, *others = body["inputs"].values()
                values = [base64.b64decode(value["b64"]) for value in images]
                fake.sent += values
                self._reply(200, {"outputs": fake.outputs(signature, values, *others)})

        return Handler


def _metadata(version: int) -> dict[str, object]:
    def tensor(dtype: str, *sizes: int) -> dict[str, object]:
        shape = {"dim": [{"size": str(size), "name": ""} for size in sizes], "unknown_rank": False}
        return {"dtype": dtype, "tensor_shape": shape, "name": "x:0"}

    signature = {
        "inputs": {"image_bytes": tensor("DT_STRING", -1)},
        "outputs": {"probabilities": tensor("DT_FLOAT", -1, len(CLASSES))},
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": "fashion_mnist", "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    }


@pytest.fixture
def serving() -> Iterator[FakeServing]:
    """A server that answers, on a free port."""
    fake = FakeServing()
    yield fake
    fake.stop()


@pytest.fixture
def environment(serving: FakeServing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's settings point to the fake server; nothing is cached from the test before."""
    monkeypatch.setenv("SERVING_URL", serving.url)
    monkeypatch.setenv("MODEL_NAME", "fashion_mnist")
    monkeypatch.delenv("MODEL_CONFIG_FILE", raising=False)
    monkeypatch.delenv("GATEWAY_USER", raising=False)
    monkeypatch.delenv("GATEWAY_PASSWORD", raising=False)
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.fixture
def page(environment: None) -> AppTest:
    """The page as it opens."""
    return AppTest.from_file(str(ROOT / "ui/app.py"), default_timeout=60).run()
