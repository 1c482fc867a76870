"""A real nginx in front of small real backends that record what reached them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
import requests
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

ROOT = Path(__file__).resolve().parents[2]
USER, PASSWORD = "vitrine", "aLongRandomPassword4Tests000"
COOKIE_SECRET = "5f" * 32
READY_S = 60


def _environ() -> dict[str, str]:
    """The environment without this machine's settings, exported or in the checkout's .env."""
    own = ("GATEWAY_", "TLS_", "SERVING_", "UI_", "MODEL_")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)} | {
        "VITRINE_ENV_FILE": str(ROOT / "no such file")
    }


@pytest.fixture
def environ() -> dict[str, str]:
    return _environ()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Backend:
    """What a backend received: (method or path, headers), newest last."""

    port: int
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def last(self) -> tuple[str, dict[str, str]]:
        return self.seen[-1]


async def _echo(backend: Backend, request: Request) -> Response:
    backend.seen.append((f"{request.method} {request.url.path}", dict(request.headers)))
    body = await request.body()
    if request.url.path.endswith("missing"):
        return JSONResponse({"error": "Servable not found"}, status_code=404)
    if "slow" in request.url.path:
        await asyncio.sleep(4)
    return JSONResponse({"path": str(request.url), "received": len(body)}, headers={"X-Backend": "yes"})


async def _stream(backend: Backend, websocket: WebSocket) -> None:
    backend.seen.append(("WEBSOCKET " + websocket.url.path, dict(websocket.headers)))
    offered = websocket.headers.get("sec-websocket-protocol")
    await websocket.accept(subprotocol=offered.split(",")[0] if offered else None)
    with contextlib.suppress(Exception):
        while True:
            await websocket.send_text(await websocket.receive_text())


@contextlib.contextmanager
def _http_backend() -> Iterator[Backend]:
    backend = Backend(free_port())
    methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]

    async def echo(request: Request) -> Response:
        return await _echo(backend, request)

    async def stream(websocket: WebSocket) -> None:
        await _stream(backend, websocket)

    app = Starlette(routes=[WebSocketRoute("/_stcore/stream", stream), Route("/{path:path}", echo, methods=methods)])
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=backend.port, log_level="error", ws="websockets-sansio")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, "the backend")
        yield backend
    finally:
        server.should_exit = True
        thread.join(READY_S)


class _AnyMethod(grpc.GenericRpcHandler):
    """Answers every method with its own request bytes; `NOT_FOUND` for the text `missing`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        self._backend.seen.append((details.method, {key: str(value) for key, value in details.invocation_metadata}))

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            if request == b"missing":
                context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
            if request == b"slow":
                time.sleep(4)
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture(scope="session")
def page() -> Iterator[Backend]:
    with _http_backend() as backend:
        yield backend


@pytest.fixture(scope="session")
def rest() -> Iterator[Backend]:
    with _http_backend() as backend:
        yield backend


@pytest.fixture(scope="session")
def rpc() -> Iterator[Backend]:
    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
    backend = Backend(server.add_insecure_port("127.0.0.1:0"))
    server.add_generic_rpc_handlers((_AnyMethod(backend),))
    server.start()
    yield backend
    server.stop(None).wait()


def wait_until(done: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + READY_S
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} was not ready within {READY_S} s")
        time.sleep(0.02)


@dataclass
class Gateway:
    """A running gateway."""

    port: int
    process: subprocess.Popen[str]
    tls_port: int
    users_file: Path
    user: str = USER
    password: str = PASSWORD
    cookie_secret: str = COOKIE_SECRET

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def auth(self) -> tuple[str, str]:
        return self.user, self.password

    def command(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            cwd=ROOT, input=stdin, capture_output=True, text=True, check=False, timeout=READY_S,
            env={**_environ(), "GATEWAY_USERS_FILE": str(self.users_file), "GATEWAY_USER": self.user},
        )  # fmt: skip


def _alive(url: str) -> bool:
    try:
        return requests.get(f"{url}/healthz", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


@contextlib.contextmanager
def _gateway(folder: Path, **environment: object) -> Iterator[Gateway]:
    port, tls_port = free_port(), free_port()
    users_file = folder / "users" / "htpasswd"
    settings = {
        "GATEWAY_USER": USER,
        "GATEWAY_PASSWORD": PASSWORD,
        "GATEWAY_COOKIE_SECRET": COOKIE_SECRET,
        "GATEWAY_BIND": "127.0.0.1",
        "GATEWAY_PORT": port,
        "GATEWAY_TLS_PORT": tls_port,
        "GATEWAY_USERS_FILE": users_file,
        "GATEWAY_ACCESS_LOG": "all",
        "TMPDIR": folder,
        **environment,
    }
    with open(folder / "log", "a") as log:  # appending: nginx opens /dev/stdout by itself, with an offset of its own
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "run"], cwd=ROOT, stdout=log, stderr=log, text=True,
            env={**_environ(), **{name: str(value) for name, value in settings.items()}},
        )  # fmt: skip
    gateway = Gateway(port, process, tls_port, users_file)
    try:
        wait_until(lambda: process.poll() is not None or _alive(gateway.url), "the gateway")
        if process.poll() is not None:
            raise RuntimeError((folder / "log").read_text())
        yield gateway
    finally:
        process.terminate()
        process.wait(READY_S)


@pytest.fixture(scope="session")
def start_gateway(world: Callable[[], Path]) -> Callable[..., contextlib.AbstractContextManager[Gateway]]:
    return lambda **environment: _gateway(world(), **environment)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes folders that nginx's workers can reach although pytest's own are closed to other users."""

    def make() -> Path:
        folder = tmp_path_factory.mktemp("gateway")
        for parent in (folder, *folder.parents):
            if os.geteuid() == 0 and parent.owner() == "root" and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
        return folder

    return make


@pytest.fixture(scope="session")
def ports(page: Backend, rest: Backend, rpc: Backend) -> dict[str, int]:
    return {"UI_PORT": page.port, "SERVING_REST_PORT": rest.port, "SERVING_GRPC_PORT": rpc.port}


@pytest.fixture(scope="session")
def gateway(
    start_gateway: Callable[..., contextlib.AbstractContextManager[Gateway]], ports: dict[str, int]
) -> Iterator[Gateway]:
    """The gateway most tests share: all backends up."""
    with start_gateway(**ports, GATEWAY_TIMEOUT_S=2) as running:
        yield running


@pytest.fixture(scope="session")
def lonely(start_gateway: Callable[..., contextlib.AbstractContextManager[Gateway]]) -> Iterator[Gateway]:
    """A gateway whose backends are all away."""
    with start_gateway(UI_PORT=free_port(), SERVING_REST_PORT=free_port(), SERVING_GRPC_PORT=free_port()) as running:
        yield running
