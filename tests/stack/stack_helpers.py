"""What the tests of the whole product share: a checkout of its own, `make up` in it, a handle on what runs, ports."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from shipped import ROOT, SHIPPED

from serving.client import ServingClient
from serving.client.grpc import GrpcServingClient

PATIENCE_S = 240
READY = "stop      Ctrl-C"  # the last line that serving/ready.py prints
PORTS = ["GATEWAY_PORT", "SERVING_GRPC_PORT", "SERVING_REST_PORT", "UI_PORT"]
USER, PASSWORD = "vitrine", "aLongRandomPassword4Tests000"
# Before a command that SIGHUP is to end, though the suite may run under nohup. A preexec_fn would do it too, but its
# fork runs gRPC's handlers, whose log lines end up in the command's stderr.
DEFAULT_SIGHUP = ("env", "--default-signal=HUP")
# the recipe itself; what it installs is here, or these tests would not run
MAKE_UP = ["make", "--old-file=.venv/runtime", "up"]
_NOT_COPIED = (".git", ".venv*", ".env", ".*_cache", "__pycache__", "htpasswd", ".htpasswd.lock")
_NOT_COPIED += ("models", "runs", "reports", "tests", "local", "promotions.jsonl", "unfinished.json")
_OURS = ("GATEWAY_", "SERVING_", "UI_PORT", "MODEL_", "TLS_", "VITRINE_", "PYTHONPATH", "MAKE", "MFLAGS")


@dataclass(frozen=True)
class Stack:
    checkout: Path
    ports: dict[str, int]

    @property
    def port(self) -> int:
        return self.ports["GATEWAY_PORT"]

    @property
    def user(self) -> str:
        return USER

    @property
    def password(self) -> str:
        return PASSWORD

    @property
    def base_path(self) -> Path:
        """Where the served model's versions lie."""
        return self.checkout / SHIPPED.parent.relative_to(ROOT)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def auth(self) -> tuple[str, str]:
        return USER, PASSWORD

    def client(self, **options) -> ServingClient:
        return ServingClient(self.url, *self.auth, timeout_s=60, **options)

    def grpc_client(self, **options) -> GrpcServingClient:
        return GrpcServingClient(self.url, *self.auth, timeout_s=60, **options)

    def predict(self, session, body: dict, model: str = "fashion_mnist"):
        return session.post(f"{self.url}/v1/models/{model}:predict", json=body, auth=self.auth, timeout=60)


class Run:
    """A command in a checkout as a terminal runs it: in a session of its own, both streams together."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[str] = []
        self.reader = threading.Thread(target=lambda: self._lines.extend(process.stdout), daemon=True)
        self.reader.start()

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.output or self.process.poll() is not None, f"{text!r} did not come", self)
        assert text in self.output, f"it ended before {text!r} came:\n{self.output}"

    def interrupt(self) -> None:
        """Ctrl-C: the terminal signals its whole foreground group; then nothing is left, and nothing complains."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(60)
        self.reader.join(10)
        assert "Traceback" not in self.output, self.output


@contextlib.contextmanager
def running(checkout: Path, command: list[str], **environment: str) -> Iterator[Run]:
    """Starts the command; whatever happens, nothing of it is left afterwards."""
    with subprocess.Popen(
        command,
        cwd=checkout,
        env=bare_environment() | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        run = Run(process)
        try:
            yield run
        finally:
            kill_all_in(checkout)
            run.reader.join(10)


@contextlib.contextmanager
def checkout(**settings: str) -> Iterator[tuple[Path, dict[str, int]]]:
    """A copy of the product with the version that ships, its own .env on free ports, and a space in its path.

    Not below pytest's folders: they are closed to others, and nginx's workers are others when root tests.
    """
    with tempfile.TemporaryDirectory(prefix="vitrine checkout ") as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        shutil.copytree(ROOT, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_NOT_COPIED))
        shutil.copytree(SHIPPED, folder / SHIPPED.relative_to(ROOT))
        (folder / ".venv").symlink_to(sys.prefix)
        ports = free_ports(PORTS)
        variables = {"GATEWAY_USER": USER, "GATEWAY_PASSWORD": PASSWORD} | ports | settings
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        yield folder, ports


def bare_environment() -> dict[str, str]:
    """The environment without what steers the product: the checkout's .env does."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}


def processes_in(folder: Path) -> list[int]:
    """The processes that work in a folder, which every part of the stack does; one that has ended works nowhere."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            cwd = (entry / "cwd").readlink()
            if folder in (cwd, *cwd.parents):
                found.append(int(entry.name))
    return found


def kill_all_in(folder: Path) -> None:
    for pid in processes_in(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], problem: str, run: Run | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{problem} within {PATIENCE_S} s\n{run.output if run else ''}"
        time.sleep(0.05)


@contextlib.contextmanager
def flowing(*asks: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """Asks each again and again in a thread of its own while the block runs; one that raises fails the block.

    Yields:
        A function that waits for five more answers on each.
    """
    stop = threading.Event()
    answered = [0] * len(asks)

    def flow(number: int) -> None:
        while not stop.is_set():
            asks[number]()
            answered[number] += 1

    with ThreadPoolExecutor(len(asks)) as pool:
        flows = [pool.submit(flow, number) for number in range(len(asks))]

        def five_more() -> None:
            wanted = [count + 5 for count in answered]
            wait_until(
                lambda: any(one.done() for one in flows) or all(map(int.__ge__, answered, wanted)),
                "no five more answers came",
            )

        try:
            yield five_more
        finally:
            stop.set()
        for one in flows:
            one.result()


def free_ports(names: list[str]) -> dict[str, int]:
    sockets = [socket.socket() for _ in names]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return {name: one.getsockname()[1] for name, one in zip(names, sockets, strict=True)}
    finally:
        for one in sockets:
            one.close()


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}
