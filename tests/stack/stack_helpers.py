"""What the tests of the whole product share: a handle on the running stack, ports, encodings."""

from __future__ import annotations

import base64
import io
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from serving.client import ServingClient

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "serving/models/fashion_mnist/1"
PATIENCE_S = 240


@dataclass(frozen=True)
class Stack:
    port: int
    ports: dict[str, int]
    user: str
    password: str
    base_path: Path  # where the served model's versions lie
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def auth(self) -> tuple[str, str]:
        return self.user, self.password

    def client(self, **options) -> ServingClient:
        return ServingClient(self.url, self.user, self.password, timeout_s=60, **options)

    def predict(self, session, body: dict, model: str = "fashion_mnist"):
        return session.post(f"{self.url}/v1/models/{model}:predict", json=body, auth=self.auth, timeout=60)


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
