"""Training on several devices, as real processes on Keras' JAX backend: the curve of one device, a worker killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from training import checkpoint
from training.distribution import is_first_process, share, share_size
from training.train import main

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 6
# 62 images in batches of 16: a short last batch
PRESET = f"""
backbone = "mini_cnn"
backbone_weights = "none"
train_limit = 62
batch_size = 16
image_size = 32
head_epochs = 0
stages = [{{ image_size = 32, epochs = {EPOCHS} }}]
early_stopping_patience = {EPOCHS}
"""


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("preset") / "tiny.toml"
    path.write_text(PRESET)
    return path


@pytest.fixture(scope="module")
def one_device(tmp_path_factory, preset) -> Path:
    """A whole run without any of it."""
    run_dir = tmp_path_factory.mktemp("one-device")
    finish(training(preset, run_dir), run_dir)
    return run_dir


def training(preset: Path, run_dir: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "training.train", "--preset", str(preset), "--run-dir", str(run_dir), *arguments]


def workers(preset: Path, run_dir: Path) -> list[str]:
    command = [sys.executable, "-m", "training.distribution", "--workers", "2", "--"]
    return [*command, "--preset", str(preset), "--run-dir", str(run_dir)]


@contextmanager
def started(command: list[str], run_dir: Path, **environment: str) -> Iterator[subprocess.Popen]:
    """A process on JAX, its output in a log beside the run directory; it and its workers are killed in the end."""
    flags = "--xla_backend_optimization_level=0 " + environment.pop("XLA_FLAGS", "")  # compiles in half the time
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(run_dir.parent / "compiled"),  # for the same command again
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags} | cache | environment
    output = {"stdout": log(run_dir).open("a"), "stderr": subprocess.STDOUT}
    with (
        output["stdout"],
        subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, start_new_session=True, **output) as process,
    ):
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def log(run_dir: Path) -> Path:
    return run_dir.with_suffix(".log")


def finish(command: list[str], run_dir: Path, **environment: str) -> None:
    with started(command, run_dir, **environment) as process:
        assert process.wait(timeout=400) == 0, log(run_dir).read_text()


def losses(run_dir: Path) -> np.ndarray:
    lines = [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(EPOCHS))
    return np.array([[line["loss"], line["val_loss"]] for line in lines])


def assert_same_run(run_dir: Path, other: Path) -> None:
    # the same images, augmentation and batch norm statistics: what differs is the order of floating-point sums:
    # 1e-7 of the loss in the first epoch, and AdamW's division by the root of small second moments lets it grow
    np.testing.assert_allclose(losses(run_dir)[0], losses(other)[0], rtol=1e-5)
    np.testing.assert_allclose(losses(run_dir), losses(other), rtol=1e-3)
    assert (run_dir / "model.keras").is_file()


def test_two_workers_one_killed_and_started_again_learn_as_one_device(tmp_path, preset, one_device):
    run_dir = tmp_path / "two-workers"
    with started(workers(preset, run_dir), run_dir) as launcher:
        deadline = time.monotonic() + 300
        while not (run_dir / "last.npz").is_file():
            assert launcher.poll() is None, log(run_dir).read_text()
            assert time.monotonic() < deadline, log(run_dir).read_text()
            time.sleep(0.05)
        victim = int(re.search(r"worker 1 is process (\d+)", log(run_dir).read_text())[1])
        os.kill(victim, signal.SIGKILL)
        status = launcher.wait(timeout=150)  # the heartbeat's 100 s, where no collective saw it first
    assert status != 0
    assert not (run_dir / "model.keras").exists()
    assert checkpoint.load(run_dir / "last.npz")[0].epoch < EPOCHS
    output = log(run_dir).read_text()
    assert "error: process 0 of 2 stopped" in output or "another task died" in output

    finish(workers(preset, run_dir), run_dir)
    output = log(run_dir).read_text()
    assert re.search(rf"going on after epoch \d+ of {EPOCHS}", output)
    assert output.count(f"epoch {EPOCHS}/{EPOCHS}: all at 32 px") == 1  # one of the workers prints
    assert_same_run(run_dir, one_device)


def test_two_devices_of_one_process_learn_as_one_device(tmp_path, preset, one_device):
    run_dir = tmp_path / "two-devices"
    two = "--xla_force_host_platform_device_count=2"
    finish(training(preset, run_dir, "--distribute", "data"), run_dir, XLA_FLAGS=two)
    assert "devices: 2, in 1 process(es)" in log(run_dir).read_text()
    assert_same_run(run_dir, one_device)


def test_workers_with_different_settings_end_with_an_error(tmp_path, preset):
    run_dir = tmp_path / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with ExitStack() as stack:
        processes = []
        for number in range(2):
            names = {"JOB_ADDRESSES": address, "NUM_PROCESSES": "2", "PROCESS_ID": str(number)}
            environment = {f"KERAS_DISTRIBUTION_{name}": value for name, value in names.items()}
            command = training(preset, run_dir, "--distribute", "data", "--seed", str(number))
            processes.append(stack.enter_context(started(command, run_dir, **environment)))
        assert all(process.wait(timeout=200) for process in processes)
    assert "process 1: other settings than those of process 0" in log(run_dir).read_text()
    assert not run_dir.exists()


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path, preset):
    run_dir = tmp_path / "run"
    three = "--xla_force_host_platform_device_count=3"
    with started(training(preset, run_dir, "--distribute", "data"), run_dir, XLA_FLAGS=three) as process:
        assert process.wait(timeout=200) == 2
    assert "batch_size=16 cannot be shared by 3 devices; expected a multiple" in log(run_dir).read_text()


def test_without_the_flag_nothing_is_shared():
    images = np.arange(10)
    assert share({"pixels": images}, 4)["pixels"] is images
    assert share_size(4) == 4
    assert is_first_process()


def test_tensorflow_is_refused(tmp_path, capsys):
    assert main(["--preset", "smoke", "--run-dir", str(tmp_path / "run"), "--distribute", "data"]) == 2
    assert "expected KERAS_BACKEND=jax, got tensorflow" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
