"""The whole product as `make up` starts it, on free ports, over a copy of the version that ships."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from stack_helpers import PATIENCE_S, ROOT, SHIPPED, Stack, free_ports


@pytest.fixture(scope="session")
def stack(tmp_path_factory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    base_path = folder / "fashion_mnist"
    shutil.copytree(SHIPPED, base_path / "1")
    ports = free_ports(["GATEWAY_PORT", "SERVING_GRPC_PORT", "SERVING_REST_PORT", "UI_PORT"])
    user, password = "tester", "aLongRandomPassword4Tests000"
    env = os.environ | {name: str(port) for name, port in ports.items()}
    env |= {
        "GATEWAY_USER": user,
        "GATEWAY_PASSWORD": password,
        "GATEWAY_USERS_FILE": str(folder / "htpasswd"),
        "MODEL_BASE_PATH": str(base_path),
    }
    for name in ("SERVING_URL", "MODEL_NAME", "GATEWAY_BIND", "TLS_CERT", "TLS_KEY"):
        env.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-m", "serving", "up"],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    ready = threading.Event()

    def read() -> None:
        for line in process.stdout:
            lines.append(line)
            if "Vitrine is ready" in line:
                ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    deadline = time.monotonic() + PATIENCE_S
    while not ready.wait(0.2):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail("the stack did not get ready:\n" + "".join(lines))
    yield Stack(ports["GATEWAY_PORT"], ports, user, password, base_path, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, "".join(lines)
    reader.join(10)
    process.stdout.close()
    for name, port in ports.items():
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, f"{name}: something still listens after Ctrl-C"


@pytest.fixture(scope="session")
def test_images() -> np.ndarray:
    """The first 20 official test images, uint8 (20, 28, 28)."""
    from training.data import load_test

    return load_test().images[:20]
