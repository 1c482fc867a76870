"""Memory of a real server process: it stays where it was, whatever is asked and however often a version is replaced."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import fuzz
import pytest
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

WEIGHTS_MB = 4


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of which each copy in memory shows."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = tf.Variable(tf.ones((WEIGHTS_MB * 2**20 // 4,)))

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
    def halve(x: Any) -> Any:
        return {"y": x * 0.5 + 2.0 * module.weights[0]}

    module.halve = halve
    path = tmp_path_factory.mktemp("heavy") / "version"
    tf.saved_model.save(module, str(path), signatures={"serving_default": halve})
    return path


@pytest.fixture(scope="module")
def base(toolbox: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "m"
    toolbox.publish(path, 1)
    return path


@pytest.fixture(scope="module")
def target(base: Path, start: Any) -> Any:
    return start("--model_name=m", f"--model_base_path={base}", "--file_system_poll_wait_seconds=0")


def test_thousands_of_requests_leave_it_where_it_was(target: Any) -> None:
    """Hundreds of thousands: `python tests/serving/embedded/fuzz.py --count 300000`."""
    fuzz.run(target, 1000, seed=11)  # warm-up
    before = fuzz.usage(target.process.pid)
    report = fuzz.run(target, 3000, seed=12)
    after = fuzz.usage(target.process.pid)
    assert sum(report.codes.values()) == 3000
    assert after.rss_mb <= before.rss_mb * 1.05, f"{before} became {after}"
    assert after.threads <= before.threads


def test_50_versions_in_a_row_leave_one_in_memory(target: Any, base: Path, heavy: Path, toolbox: Any) -> None:
    pid = target.process.pid
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="m", base_path=str(base), model_platform="tensorflow")
    with target.channel() as channel, fuzz.Bystander(target) as bystander:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        for version in range(2, 62):
            shutil.copytree(heavy, base / f".{version}.new")
            (base / f".{version}.new").rename(base / str(version))
            stub.HandleReloadConfigRequest(request, timeout=60)  # looks for versions, and loads them
            assert target.states()[version] == "AVAILABLE"
            if version == 11:  # warm by now: 50 more follow
                before = fuzz.usage(pid)
    expected = {version: "AVAILABLE" if version == 61 else "END" for version in range(1, 62)}
    toolbox.wait_until(lambda: target.states() == expected, what="the old versions to be unloaded")
    after = fuzz.usage(pid)
    assert not bystander.failures
    assert after.rss_mb <= before.rss_mb * 1.05, f"{before} became {after}; 50 copies are {50 * WEIGHTS_MB} MB"
    assert after.threads <= before.threads
