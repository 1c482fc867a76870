"""Small SavedModels and server processes for the tests of what only the embedded server does."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contract"))
import contract_models  # noqa: E402
from embedded_server import Server, Servers, launch, wait_until  # noqa: E402


def save_model(directory: Path) -> Path:
    """Write the model with a signature for every rule that is tested."""
    contract_models.save_rules({directory: 2.0})
    return directory


@pytest.fixture(scope="session")
def model_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the SavedModels `2` (adds 2) and `3` (adds 3), made once."""
    store = tmp_path_factory.mktemp("store")
    contract_models.save_rules({store / "2": 2.0, store / "3": 3.0})
    return store


@dataclass
class Toolbox:
    """What the tests need beyond fixtures; test folders are no packages, so nothing can be imported from here."""

    store: Path

    @staticmethod
    def wait_until(check: Callable[[], Any], what: str = "the condition") -> Any:
        return wait_until(check, what=what)

    @staticmethod
    def launch(log: Path, *flags: str) -> Server:
        """Start a server that is not expected to get ready."""
        return launch(log, *flags)

    def publish(self, base: Path, version: int, addend: int = 2) -> Path:
        """Copy a SavedModel into place as training does: beside first, then renamed."""
        base.mkdir(parents=True, exist_ok=True)
        beside = base / f".{version}.new"
        shutil.copytree(self.store / str(addend), beside)
        return beside.rename(base / str(version))


@pytest.fixture(scope="session")
def toolbox(model_store: Path) -> Toolbox:
    return Toolbox(model_store)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Start servers that end with the module."""
    servers = Servers(tmp_path_factory.mktemp("logs"))
    yield servers
    servers.end()


@pytest.fixture(scope="session")
def server(toolbox: Toolbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with model `m`, version 1, shared by all tests that change nothing in it."""
    base = tmp_path_factory.mktemp("models") / "m"
    toolbox.publish(base, 1)
    config = base.parent / "monitoring.config"
    config.write_text("prometheus_config { enable: true }\n")
    servers = Servers(tmp_path_factory.mktemp("logs"))
    try:
        yield servers("--model_name=m", f"--model_base_path={base}", f"--monitoring_config_file={config}")
    finally:
        servers.end()


@pytest.fixture(scope="module")
def prediction_stub(server: Server) -> Iterator[Any]:
    with server.channel() as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def model_stub(server: Server) -> Iterator[Any]:
    with server.channel() as channel:
        yield model_service_pb2_grpc.ModelServiceStub(channel)
