"""What `make test-serving` runs, with a `docker` on PATH that starts serving.embedded instead of a container."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[3]
REAL = REPO / "tests" / "serving" / "contract" / "real.py"
IMAGE = re.search(r"image: (tensorflow/serving:\S+)", (REPO / "docker-compose.yml").read_text())[1]
# Two tests that together need both servers and their directory.
FEW = ("-p", "no:cacheprovider", "-k", "test_paths or test_a_vanished_version")

DOCKER = f'''#!{sys.executable}
"""docker run, port, ps and rm for one kind of container."""
import os, pathlib, signal, socket, subprocess, sys
state = pathlib.Path(__file__).parent
command, *rest = sys.argv[1:]
if command == "run":
    with (state / "calls").open("a") as calls:
        print(*rest, file=calls)
    image = next(at for at, word in enumerate(rest) if word.startswith("tensorflow/serving:"))
    name = rest[rest.index("--name") + 1]
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    flags = [flag for flag in rest[image + 1 :] if "port=" not in flag]
    with (state / (name + ".log")).open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "serving.embedded", f"--port={{ports[0]}}", f"--rest_api_port={{ports[1]}}", *flags],
            cwd={str(REPO)!r}, stdout=log, stderr=log, env=dict(os.environ, CUDA_VISIBLE_DEVICES=""),
            start_new_session=True,
        )
    (state / name).write_text(f"{{server.pid}} {{ports[0]}} {{ports[1]}}")
    print("0123456789ab")
elif command == "port":
    pid, grpc, rest_api = (state / rest[0]).read_text().split()
    print("127.0.0.1:" + (grpc if rest[1] == "8500/tcp" else rest_api))
elif command == "ps":
    name = next(word for word in rest if word.startswith("name=")).removeprefix("name=")
    print("0123456789ab" if (state / name).exists() else "")
elif command == "rm":
    file = state / rest[-1]
    os.kill(int(file.read_text().split()[0]), signal.SIGKILL)
    file.unlink()
else:
    sys.exit(f"no such command: {{command}}")
'''


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SERVING_", "VITRINE_"))}
    command = [sys.executable, str(REAL), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=kept | environment)


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """The stand-in's folder: put it on PATH; what it was called with is in the file `calls`."""
    script = tmp_path / "docker"
    script.write_text(DOCKER)
    script.chmod(0o755)
    return tmp_path


def test_the_whole_way(docker: Path, tmp_path: Path) -> None:
    basetemp = f"--basetemp={tmp_path / 'inner'}"
    result = run(*FEW, basetemp, PATH=f"{docker}:{os.environ['PATH']}")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "10 passed" in result.stdout
    plain, batching = (docker / "calls").read_text().splitlines()
    for call in (plain, batching):
        assert (
            f" --publish 127.0.0.1::8500 --publish 127.0.0.1::8501 --entrypoint tensorflow_model_server {IMAGE} "
            in call
        )
        assert ":ro " in call
    assert ("--enable_batching" in plain, "--enable_batching" in batching) == (False, True)
    left = {path.name for path in docker.iterdir() if not path.name.endswith(".log")}
    assert left == {"docker", "calls", "inner"}  # both containers are gone


def test_without_docker_one_line_says_so(tmp_path: Path) -> None:
    result = run(PATH=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr == (
        "error: docker is not there: install it, or name a running server with SERVING_REST_URL and SERVING_GRPC\n"
    )


def test_a_docker_that_fails(tmp_path: Path) -> None:
    script = tmp_path / "docker"
    script.write_text("#!/bin/sh\necho no such image >&2\nexit 125\n")
    script.chmod(0o755)
    result = run(PATH=f"{tmp_path}:{os.environ['PATH']}", VITRINE_SERVING_IMAGE="tensorflow/serving:9.9")
    assert result.returncode == 1
    assert " tensorflow/serving:9.9 --port=8500 --rest_api_port=8501 --model_config_file=/" in result.stdout
    assert result.stderr.endswith("no such image\nerror: docker run ended with 125: what it said is above\n")


def test_an_address_needs_both_of_its_variables() -> None:
    result = run(SERVING_REST_URL="http://127.0.0.1:1")
    assert (result.returncode, result.stderr) == (
        1,
        "error: set both SERVING_REST_URL and SERVING_GRPC, or none of them\n",
    )


def test_only_pytest_runs_where_an_address_is_given() -> None:
    addresses = {"SERVING_REST_URL": "http://127.0.0.1:1", "SERVING_GRPC": "127.0.0.1:1"}
    result = run("-p", "no:cacheprovider", "--collect-only", "-q", "-k", "test_a_large_body", **addresses)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "test_contract_http.py: 1" in result.stdout
