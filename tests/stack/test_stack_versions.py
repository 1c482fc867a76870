"""New versions under load; a smoke training from nothing into the running stack."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import requests
from shipped import ROOT, SHIPPED
from stack_helpers import b64, flowing, png, wait_until

from training import manifest
from training.publish import publish

pytestmark = pytest.mark.usefixtures("own_versions")


def wait_for_version(stack, version: int) -> None:
    with stack.client() as client:
        wait_until(
            lambda: any(one.version == version and one.available for one in client.status()),
            f"version {version} was not taken up",
        )


def test_a_version_published_under_load_is_taken_up_and_nothing_fails(stack, test_images):
    picture = png(test_images[1])
    with requests.Session() as session, stack.grpc_client(retries=0) as client:
        with flowing(
            lambda: stack.predict(session, {"instances": [b64(picture)]}).raise_for_status(),
            lambda: client.predict(picture),
        ) as five_more:
            five_more()
            version = publish(SHIPPED, stack.base_path)
            wait_for_version(stack, version)
            five_more()
        assert client.predict(picture)[0].version == version


def test_smoke_training_is_served(stack, test_images, tmp_path):
    command = [sys.executable, "-m", "training", "--preset", "smoke", "--run-dir", str(tmp_path / "run")]
    command += ["--base-path", str(stack.base_path)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=900)
    assert run.returncode == 0, run.stderr
    assert "Wilson" in run.stdout
    version = max(int(p.name) for p in stack.base_path.iterdir() if p.name.isdecimal())
    wait_for_version(stack, version)
    with stack.client() as client:
        explained = client.explain(png(test_images[0]))[0]
    assert explained.version == version
    assert abs(explained.probabilities.sum() - 1) < 1e-5
    described = manifest.read(stack.base_path / str(version))
    assert described["fine_layers"] == {"map_6": "block_13_expand_relu", "map_12": "block_6_expand_relu"}
    calibration = described["calibration"]
    assert calibration["after"]["negative_log_likelihood"] <= calibration["before"]["negative_log_likelihood"]
