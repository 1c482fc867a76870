"""New versions under load; a smoke training from nothing into the running stack."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import requests
from stack_helpers import PATIENCE_S, ROOT, SHIPPED, b64, png

from training.publish import publish


def wait_for_version(stack, version: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with stack.client() as client:
            if any(s.version == version and s.state == "AVAILABLE" for s in client.status()):
                return
        time.sleep(0.3)
    raise AssertionError(f"version {version} was not taken up")


def test_a_version_published_under_load_is_taken_up_and_nothing_fails(stack, test_images):
    statuses: list[int] = []
    stop = threading.Event()

    def flow() -> None:
        with requests.Session() as session:
            while not stop.is_set():
                statuses.append(stack.predict(session, {"instances": [b64(png(test_images[1]))]}).status_code)

    thread = threading.Thread(target=flow)
    thread.start()
    try:
        version = publish(SHIPPED, stack.base_path)
        wait_for_version(stack, version)
        after = len(statuses)
        while len(statuses) < after + 5:
            time.sleep(0.05)
    finally:
        stop.set()
        thread.join()
    assert version == 2
    assert set(statuses) == {200}
    with stack.client() as client:
        assert client.predict(png(test_images[1]))[0].version == version


def test_smoke_training_is_served(stack, test_images, tmp_path):
    command = [sys.executable, "-m", "training", "--preset", "smoke", "--run-dir", str(tmp_path / "run")]
    command += ["--base-path", str(stack.base_path)]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    )
    assert run.returncode == 0, run.stderr
    assert "Wilson" in run.stdout
    version = max(int(p.name) for p in stack.base_path.iterdir() if p.name.isdecimal())
    wait_for_version(stack, version)
    with stack.client() as client:
        explained = client.explain(png(test_images[0]))[0]
    assert explained.version == version
    assert abs(explained.probabilities.sum() - 1) < 1e-5
