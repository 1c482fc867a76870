"""Run the contract tests against the real TensorFlow Serving, in a container.

    python tests/serving/contract/real.py                                 (or: make test-serving)
    SERVING_REST_URL=http://host:8501 SERVING_GRPC=host:8500 python tests/serving/contract/real.py
    python tests/serving/contract/real.py --write DIRECTORY [--mounted-at PATH]

The first writes the models, starts `docker run` of VITRINE_SERVING_IMAGE (else the image of docker-compose.yml) twice,
without and with batching, with the models mounted and the ports on loopback, runs `pytest -m contract`, and removes the
containers.
The second starts nothing. The third writes models and configs for a server that someone else starts with the flags it
prints; PATH is where that server will see them. Other arguments go to pytest.
"""

# ruff: noqa: T201  # a command line prints
from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import contract_models

TESTS = Path(__file__).resolve().parent
REPO = TESTS.parents[2]
GRPC, REST = 8500, 8501  # in the container
START_TIMEOUT_S = 300.0


class RealError(Exception):
    """The tests cannot be run; the message is for people."""


def main() -> int:
    """Returns pytest's exit code; 1 where it cannot be run, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="DIRECTORY", help="write the models there and stop")
    parser.add_argument("--mounted-at", type=Path, metavar="PATH", help="where the server sees DIRECTORY")
    options, for_pytest = parser.parse_known_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if options.write:
        mounted_at = options.mounted_at or options.write.resolve()
        contract_models.write(options.write.resolve(), mounted_at)
        print(*contract_models.flags(mounted_at, batching=False))
        return 0
    try:
        if bool(os.environ.get("SERVING_REST_URL")) != bool(os.environ.get("SERVING_GRPC")):
            raise RealError("set both SERVING_REST_URL and SERVING_GRPC, or none of them")
        if os.environ.get("SERVING_REST_URL"):
            return _pytest(os.environ, for_pytest)
        return _against_containers(for_pytest)
    except RealError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _against_containers(for_pytest: Sequence[str]) -> int:
    docker = shutil.which("docker")
    if docker is None:
        raise RealError(
            "docker is not there: install it, or name a running server with SERVING_REST_URL and SERVING_GRPC"
        )
    image = os.environ.get("VITRINE_SERVING_IMAGE") or _image_of_compose()
    with tempfile.TemporaryDirectory(prefix="vitrine-contract-") as folder, ExitStack() as stack:
        directory = Path(folder).resolve()
        directory.chmod(0o755)  # the container's user reads it
        print(f"writing the models of the contract tests to {directory}", flush=True)
        contract_models.write(directory)
        environ = dict(os.environ, SERVING_CONTRACT_DIR=str(directory))
        names = [stack.enter_context(_container(docker, image, directory, batching)) for batching in (False, True)]
        for name, batching in zip(names, ("", "BATCHING_"), strict=True):
            rest, grpc = _published(docker, name, REST), _published(docker, name, GRPC)
            environ |= {f"SERVING_{batching}REST_URL": f"http://{rest}", f"SERVING_{batching}GRPC": grpc}
            _await_ready(docker, name, f"http://{rest}")
        return _pytest(environ, for_pytest)


def _image_of_compose() -> str:
    text = (REPO / "docker-compose.yml").read_text(encoding="utf-8")
    return re.search(r"^ +image: (tensorflow/serving:\S+)$", text, re.MULTILINE)[1]


@contextmanager
def _container(docker: str, image: str, directory: Path, batching: bool) -> Iterator[str]:
    """Start a server; it is removed in the end, whatever happens."""
    name = f"vitrine-contract-{uuid.uuid4().hex[:12]}"
    # Mounted where it is here: what the tests write, and what the server says of it, is the same path.
    command = [docker, "run", "--rm", "--detach", "--name", name, "--volume", f"{directory}:{directory}:ro"]
    command += ["--publish", f"127.0.0.1::{GRPC}", "--publish", f"127.0.0.1::{REST}"]
    # The image's own entrypoint is a shell that does not pass SIGTERM on.
    command += ["--entrypoint", "tensorflow_model_server", image, f"--port={GRPC}", f"--rest_api_port={REST}"]
    command += contract_models.flags(directory, batching)
    print(" ".join(command), flush=True)
    started = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    if started:
        raise RealError(f"docker run ended with {started}: what it said is above")
    try:
        yield name
    finally:
        subprocess.run([docker, "rm", "--force", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _published(docker: str, name: str, port: int) -> str:
    """Where Docker put a port of a container, as host:port."""
    result = subprocess.run([docker, "port", name, f"{port}/tcp"], capture_output=True, text=True)
    if result.returncode or not result.stdout.strip():
        raise RealError(f"the server ended at once, or docker does not say where its port {port} is: {result.stderr}")
    return result.stdout.split()[0]


def _await_ready(docker: str, name: str, url: str) -> None:
    """Wait until the last model of the config is served: REST opens when all are loaded."""
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{url}/v1/models/{list(contract_models.MODELS)[-1]}", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
        if not subprocess.run(
            [docker, "ps", "--quiet", "--filter", f"name={name}"], capture_output=True
        ).stdout.strip():
            raise RealError("the server ended while it was loading the models; run the command above without --detach")
    raise RealError(f"the server was not ready after {START_TIMEOUT_S:.0f} s")


def _pytest(environ: dict[str, str] | os._Environ[str], arguments: Sequence[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-m", "contract", str(TESTS), *arguments]
    return subprocess.run(command, env=dict(environ), cwd=REPO).returncode


if __name__ == "__main__":
    sys.exit(main())
