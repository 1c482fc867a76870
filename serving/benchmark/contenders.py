"""What is compared: ours with and without gateway, over REST and gRPC, and the peers; all on free ports."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import requests
from PIL import Image

from serving.benchmark.load import LoadError, Request
from serving.client import protos

ROOT = Path(__file__).resolve().parents[2]
PEERS = Path(__file__).with_name("peers")
START_S = 180
MODEL = "benchmark"
_USER = "benchmark"
_MULTIPART = {"Content-Type": "multipart/form-data; boundary=part"}
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Contender:
    """One way to serve; `ask` sends one request and gives the class it answers.

    Some servers keep a core busy with waiting. So a peer's processes, a process group, stand still while another is
    measured; ours wait without that.
    """

    name: str
    ours: bool
    request: Request
    ask: Callable[[], int]
    processes: int | None = None

    def stand_still(self) -> None:
        """Takes a peer the processor."""
        if self.processes is not None:
            os.killpg(self.processes, signal.SIGSTOP)

    def go_on(self) -> None:
        """Gives it back."""
        if self.processes is not None:
            os.killpg(self.processes, signal.SIGCONT)


@contextlib.contextmanager
def started(version: Path, image: bytes, peers_python: Path | None, logs: Path) -> Iterator[list[Contender]]:
    """Starts everything, and ends it.

    Args:
        version: the version directory whose weights all of them serve.
        image: the encoded picture that is sent.
        peers_python: interpreter that has peers/requirements.txt; None leaves the peers out.
        logs: folder for the output of each process.

    Raises:
        LoadError: one of them does not answer, or not the same class as the first.
    """
    with contextlib.ExitStack() as stack:
        contenders = _ours(stack, version, image, logs)
        if peers_python is not None:
            contenders += _peers(stack, version, image, peers_python, logs)
        expected = _first_answer(contenders[0], logs)
        for contender in contenders[1:]:
            found = _first_answer(contender, logs)
            if found != expected:
                raise LoadError(f"{contender.name} answers class {found}, {contenders[0].name} class {expected}")
            contender.stand_still()
        yield contenders


def _ours(stack: contextlib.ExitStack, version: Path, image: bytes, logs: Path) -> list[Contender]:
    rest, grpc_port, gateway, ui = _free_ports(4)
    models = Path(stack.enter_context(tempfile.TemporaryDirectory()), "model")
    models.mkdir()
    (models / version.name).symlink_to(version.resolve())
    server = [f"--port={grpc_port}", f"--rest_api_port={rest}", f"--model_name={MODEL}", f"--model_base_path={models}"]
    server += ["--enable_batching", "--batching_parameters_file=serving/config/batching.config"]  # as in the Procfile
    _start(stack, [sys.executable, "-m", "serving.embedded", *server], logs / "model-server.log")
    password = secrets.token_urlsafe(24)
    settings = {
        "GATEWAY_USER": _USER,
        "GATEWAY_PASSWORD": password,
        "GATEWAY_PORT": str(gateway),
        "GATEWAY_USERS_FILE": str(models.parent / "htpasswd"),
        "SERVING_REST_PORT": str(rest),
        "SERVING_GRPC_PORT": str(grpc_port),
        "UI_PORT": str(ui),
    }
    _start(stack, [sys.executable, "-m", "gateway", "run"], logs / "gateway.log", settings)
    authorization = {"Authorization": "Basic " + base64.b64encode(f"{_USER}:{password}".encode()).decode()}
    png = {"instances": [{"b64": base64.b64encode(image).decode()}]}
    with Image.open(io.BytesIO(image)) as picture:
        numbers = np.asarray(picture.convert("RGB").resize((96, 96)))
    return [
        _rest("model server, REST", rest, png, {}),
        _rest("gateway, REST", gateway, png, authorization),
        _grpc("model server, gRPC", grpc_port, image, {}),
        _grpc("gateway, gRPC", gateway, image, authorization),
        _rest(
            f"model server, REST, {numbers.size:,} numbers",
            rest,
            {"signature_name": "images", "instances": [numbers.tolist()]},
            {},
        ),
    ]


def _peers(stack: contextlib.ExitStack, version: Path, image: bytes, python: Path, logs: Path) -> list[Contender]:
    form = (
        b'--part\r\nContent-Disposition: form-data; name="image"; filename="image.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + image + b"\r\n--part--\r\n"
    )
    document = json.dumps({"image": base64.b64encode(image).decode()}).encode()
    settings = {"BENCHMARK_VERSION": str(version.resolve()), "PYTHONPATH": str(PEERS), "BENTOML_DO_NOT_TRACK": "True"}
    contenders = []
    for name, app, body, headers in (
        ("Flask, model.predict", "flask_app", form, _MULTIPART),
        ("FastAPI, tf.function", "fastapi_app", form, _MULTIPART),
        ("LitServe, batching", "litserve_app", document, _JSON),
        ("BentoML, batching", "bentoml_app", form, _MULTIPART),
    ):
        (port,) = _free_ports(1)
        command = [str(python), str(PEERS / f"{app}.py"), str(port)]
        if app == "bentoml_app":
            bentoml = [str(python.with_name("bentoml")), "serve", f"{app}:Single"]
            command = [*bentoml, f"--port={port}", "--host=127.0.0.1", f"--working-dir={PEERS}"]
        processes = _start(stack, command, logs / f"{app}.log", settings)
        request = Request(f"http://127.0.0.1:{port}/predict", body, headers)
        ask = _rest_asker(request, lambda answer: answer["class_id"])
        contenders.append(Contender(name, False, request, ask, processes))
    return contenders


def _rest(name: str, port: int, document: dict, authorization: dict[str, str]) -> Contender:
    body = json.dumps(document).encode()
    request = Request(f"http://127.0.0.1:{port}/v1/models/{MODEL}:predict", body, _JSON | authorization)
    return Contender(name, True, request, _rest_asker(request, lambda answer: answer["predictions"][0]["class_id"]))


def _rest_asker(request: Request, class_id: Callable[[dict], int]) -> Callable[[], int]:
    def ask() -> int:
        response = requests.post(request.url, request.body, headers=dict(request.headers), timeout=60)
        response.raise_for_status()
        return class_id(response.json())

    return ask


def _grpc(name: str, port: int, image: bytes, authorization: dict[str, str]) -> Contender:
    message = protos.MESSAGES["PredictRequest"]()
    message.model_spec.name = MODEL
    tensor = message.inputs["image_bytes"]
    tensor.dtype = protos.DT_STRING
    tensor.tensor_shape.dim.add(size=1)
    tensor.string_val.append(image)
    body = message.SerializeToString()
    method = "/tensorflow.serving.PredictionService/Predict"
    metadata = [(key.lower(), value) for key, value in authorization.items()]

    def ask() -> int:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            answer = channel.unary_unary(method)(body, metadata=metadata, timeout=60)
        return int(protos.MESSAGES["PredictResponse"].FromString(answer).outputs["class_id"].int64_val[0])

    request = Request(f"http://127.0.0.1:{port}{method}", body, dict(metadata), grpc=True)
    return Contender(name, True, request, ask)


def _first_answer(contender: Contender, logs: Path) -> int:
    deadline = time.monotonic() + START_S
    while True:
        try:
            return contender.ask()
        except (requests.RequestException, grpc.RpcError) as error:
            if time.monotonic() > deadline:
                raise LoadError(f"{contender.name} did not answer within {START_S} s ({error}); see {logs}") from None
            time.sleep(0.5)


def _start(
    stack: contextlib.ExitStack, command: Sequence[str], log: Path, settings: dict[str, str] | None = None
) -> int:
    """Starts a process group, which ends with the stack, and gives its number."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=stream, stderr=stream, env={**os.environ, **(settings or {})}, process_group=0
        )
    stack.callback(_end, process)
    return process.pid


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a server and the workers that it forked."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
