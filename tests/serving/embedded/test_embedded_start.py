"""What keeps the server from starting is said in one line, at once."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.embedded import batching_config, flags, model_config
from serving.embedded.errors import ServingError
from serving.embedded.text_protos import MonitoringConfig, read

REPO = Path(__file__).resolve().parents[3]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving.embedded", *arguments]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=90)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--nope=1"], 2, "Unknown argument: --nope=1"),
        (["--port=x", "--model_base_path=."], 2, "--port is a whole number"),
        (["--enable_batching=maybe"], 2, "--enable_batching is true or false"),
        ([], 2, "Both --model_base_path and --model_config_file are empty"),
        (["--port=1", "--rest_api_port=1", "--model_base_path=."], 2, "--rest_api_port cannot be same as --port"),
        (["--model_base_path=.", "--batching_parameters_file=x"], 2, "without --enable_batching"),
        (["--port=0", "--rest_api_port=1234", "--model_base_path=/not/there"], 1, "Could not find base path /not"),
        (["--model_config_file=/not/there"], 1, "Cannot read config file '/not/there'"),
    ],
)
def test_a_start_that_cannot_work(arguments: list[str], code: int, message: str) -> None:
    result = run(*arguments)
    assert result.returncode == code
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for flag in ("--port", "--rest_api_port"):
            other = "--rest_api_port=0" if flag == "--port" else "--port=0"
            result = run(f"{flag}={port}", other, "--model_base_path=tests")
            assert result.returncode == 1
            assert f"cannot listen on 127.0.0.1:{port}" in result.stderr
            assert result.stderr.count("\n") == 1


def test_a_model_that_cannot_be_loaded(tmp_path: Path, toolbox: Any) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    server = toolbox.launch(tmp_path / "log", f"--model_base_path={tmp_path / 'm'}", "--max_num_load_retries=0")
    assert server.process.wait(90) == 1
    text = server.log.read_text()
    expected = (
        "1 model(s) did not become available: {{{name: default version: 1} due to error: NOT_FOUND: Could not find"
    )
    assert expected in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_config_list { config { name: ", "Invalid protobuf file"),
        ('model_config_list { config { name: "a" base_path: "rel" model_platform: "tensorflow" } }', "absolute path"),
        ('model_config_list { config { name: "a" base_path: "/a" } }', "neither ModelServerConfig::model_type"),
        ('model_config_list { config { name: "a" base_path: "/a" model_platform: "x" } }', "unsupported platform x"),
        ('model_config_list { config { name: "a" base_path: "/a" model_platform: "tensorflow" } '
         'config { name: "a" base_path: "/b" model_platform: "tensorflow" } }', "Illegal to list model a multiple"),
    ],
)  # fmt: skip
def test_a_broken_model_config(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "models.config"
    file.write_text(text)
    with pytest.raises(ServingError, match=message):
        model_config.settings(read(file, ModelServerConfig()))


def test_the_configs_in_the_repository_are_valid() -> None:
    models = model_config.settings(read(REPO / "serving/config/models.config", ModelServerConfig()))
    assert str(models["fashion_mnist"].base_path) == "/models/fashion_mnist"
    assert batching_config.read_settings(str(REPO / "serving/config/batching.config")).run_size == 16
    assert read(REPO / "serving/config/monitoring.config", MonitoringConfig()).prometheus_config.enable


def test_rows_of_a_run_without_and_with_splitting(tmp_path: Path) -> None:
    file = tmp_path / "batching.config"
    text = "max_batch_size { value: 32 } max_execution_batch_size { value: 8 }"
    file.write_text(text)
    assert batching_config.read_settings(str(file)).run_size == 32
    file.write_text(f"{text} enable_large_batch_splitting {{ value: true }}")
    assert batching_config.read_settings(str(file)).run_size == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size { value: 0 }", "max_batch_size must be positive; was 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4",
         "must match max_batch_size; last entry was 4; expected 8"),
        ("max_batch_size { value: 8 } max_execution_batch_size { value: 4 } allowed_batch_sizes: 8 "
         "enable_large_batch_splitting { value: true }", "must be equal to max_execution_batch_size; last entry was 8"),
    ],
)  # fmt: skip
def test_batching_parameters_that_do_not_fit(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "batching.config"
    file.write_text(text)
    with pytest.raises(ServingError, match=message):
        batching_config.read_settings(str(file))


def test_version_directories_and_policies(tmp_path: Path) -> None:
    for name in ("1", "002", "10", "x", "-3", ".4", "5.0", "99999999999999999999"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a file")
    settings = model_config.ModelSettings("m", tmp_path)
    versions = settings.versions_on_disk()
    assert sorted(versions) == [-3, 1, 2, 10]
    assert settings.wanted(versions) == {10}
    policy = model_config.VersionPolicy()
    policy.latest.num_versions = 2
    assert model_config.ModelSettings("m", tmp_path, policy).wanted(versions) == {2, 10}
    policy.specific.versions.extend([1, 5])
    assert model_config.ModelSettings("m", tmp_path, policy).wanted(versions) == {1}
    policy.all.SetInParent()
    assert model_config.ModelSettings("m", tmp_path, policy).wanted(versions) == {-3, 1, 2, 10}
    (tmp_path / "2").mkdir()
    assert settings.versions_on_disk()[2].name == "2"


def test_booleans_on_the_command_line() -> None:
    assert flags.parse(["--model_base_path=x", "--enable_batching"]).enable_batching
    assert flags.parse(["--model_base_path=x", "--enable_batching=true"]).enable_batching
    assert not flags.parse(["--model_base_path=x", "--enable_batching=false"]).enable_batching
