"""Starts `python -m serving.embedded` for tests, and ends it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import requests

REPO = Path(__file__).resolve().parents[3]
START_TIMEOUT_S = 90.0


def free_port() -> int:
    """A port that nobody listens on."""
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
