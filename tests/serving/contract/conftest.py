"""The server the contract is held against: `serving.embedded`, or any other whose address the environment gives.

SERVING_REST_URL and SERVING_GRPC name a server of the models of contract_models.py. With SERVING_BATCHING_REST_URL and
SERVING_BATCHING_GRPC, one with --enable_batching is asked too. SERVING_CONTRACT_DIR is the models' directory as this
machine sees it; without it the tests that publish versions are skipped. `python tests/serving/contract/real.py` sets
all of them.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

sys.path.insert(0, str(Path(__file__).parent))
import contract_models  # noqa: E402
from embedded_server import Servers, wait_until  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "contract: holds for tensorflow_model_server and serving.embedded alike")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.contract)


@dataclass
class Target:
    """A server, and where its models lie, as this machine sees them."""

    url: str
    grpc_address: str
    directory: Path | None
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        limits = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self.channel = grpc.insecure_channel(self.grpc_address, options=limits)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def close(self) -> None:
        self.channel.close()
        self.session.close()

    # REST

    def post(self, path: str, body: Any, **options: Any) -> requests.Response:
        """POST a dict as JSON, or bytes as they are."""
        kind = "data" if isinstance(body, bytes | str) else "json"
        return self.session.post(f"{self.url}/v1/models/{path}", **{kind: body}, timeout=60, **options)

    def get(self, path: str) -> requests.Response:
        return self.session.get(f"{self.url}{path}", timeout=60)

    def metric(self, name: str, **labels: str) -> float:
        """The value of one line of the prometheus page; 0 for one that is not there."""
        inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
        cell = f":tensorflow:serving:{name}{{{inner}}} "
        for line in self.get("/monitoring/prometheus/metrics").text.splitlines():
            if line.startswith(cell):
                return float(line.removeprefix(cell))
        return 0.0

    # gRPC

    def predict(self, model: str, signature: str = "", **inputs: Any) -> predict_pb2.PredictRequest:
        """Make a PredictRequest of arrays, lists or TensorProtos."""
        import tensorflow as tf

        message = predict_pb2.PredictRequest()
        message.model_spec.name, message.model_spec.signature_name = model, signature
        for alias, value in inputs.items():
            proto = value if hasattr(value, "tensor_shape") else tf.make_tensor_proto(value)
            message.inputs[alias].CopyFrom(proto)
        return message

    def failure(self, call: Any, message: Any, timeout: float = 60) -> tuple[str, str]:
        """Make a call that has to fail; returns its code's name and its text."""
        with pytest.raises(grpc.RpcError) as caught:
            call(message, timeout=timeout)
        return caught.value.code().name, caught.value.details()

    def status(self, model: str) -> dict[int, tuple[str, int, str]]:
        """State, error code and message of every version; empty for a model nobody has heard of."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        with suppress(grpc.RpcError):
            answer = self.models.GetModelStatus(request, timeout=60)
            names = get_model_status_pb2.ModelVersionStatus.State.Name
            return {
                one.version: (names(one.state), one.status.error_code, one.status.error_message)
                for one in answer.model_version_status
            }
        return {}

    # The models' directory

    def states(self, model: str) -> dict[int, str]:
        return {version: state for version, (state, _, _) in self.status(model).items()}

    def await_states(self, model: str, *wanted: tuple[int, str]) -> None:
        wait_until(lambda: set(wanted) <= set(self.states(model).items()), what=f"{model} as {wanted}")

    def mounted(self, *parts: str) -> str:
        """Where the server sees a path below the models' directory."""
        root = re.search(r'base_path: "(.*)/rules"', (self.directory / contract_models.CONFIG).read_text())[1]
        return "/".join([root, *parts])

    def publish(self, model: str, version: int | str, like: str = "plain/1") -> Path:
        """Copy one of the models into place as training does: beside first, then renamed."""
        base = self.directory / model
        base.mkdir(exist_ok=True)
        shutil.copytree(self.directory / like, base / f".{version}.new")
        return (base / f".{version}.new").rename(base / str(version))

    def config(self) -> model_management_pb2.ReloadConfigRequest:
        """The request that asks for the config the server was started with."""
        from google.protobuf import text_format

        request = model_management_pb2.ReloadConfigRequest()
        text_format.Parse((self.directory / contract_models.CONFIG).read_text(), request.config)
        return request

    def reload(self, request: model_management_pb2.ReloadConfigRequest) -> model_management_pb2.ReloadConfigResponse:
        return self.models.HandleReloadConfigRequest(request, timeout=120)


@pytest.fixture(scope="session")
def contract_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models, written once."""
    directory = tmp_path_factory.mktemp("contract")
    contract_models.write(directory)
    return directory


@pytest.fixture(scope="session")
def targets(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[[bool], Target]]:
    """Give the server without batching, or the one with it; each started once, and only if a test asks for it."""
    made: dict[bool, Target] = {}
    servers = Servers(tmp_path_factory.mktemp("logs"))

    def target(batching: bool) -> Target:
        if batching not in made:
            made[batching] = from_environment(batching) or embedded(batching)
        return made[batching]

    def from_environment(batching: bool) -> Target | None:
        if "SERVING_REST_URL" not in os.environ:
            return None
        middle = "BATCHING_" if batching else ""
        names = f"SERVING_{middle}REST_URL", f"SERVING_{middle}GRPC"
        missing = [name for name in names if not os.environ.get(name)]
        if missing:
            pytest.skip(f"{missing[0]} is not set")
        directory = os.environ.get("SERVING_CONTRACT_DIR")
        url, address = (os.environ[name] for name in names)
        return Target(url.rstrip("/"), address, Path(directory) if directory else None)

    def embedded(batching: bool) -> Target:
        directory = request.getfixturevalue("contract_directory")
        server = servers(*contract_models.flags(directory, batching))
        return Target(server.base, f"127.0.0.1:{server.port}", directory)

    yield target
    for one in made.values():
        one.close()
    servers.end()


@pytest.fixture(scope="session")
def target(targets: Callable[[bool], Target]) -> Target:
    """The server without batching."""
    return targets(False)


@pytest.fixture(scope="session", params=[False, True], ids=["plain", "batching"])
def any_target(targets: Callable[[bool], Target], request: pytest.FixtureRequest) -> Target:
    """The server without batching, then the one with it: for what holds in both."""
    return targets(request.param)


@pytest.fixture(scope="session")
def changing(target: Target) -> Target:
    """The server without batching, for tests that publish versions and reload its config; they leave it as it was."""
    if target.directory is None:
        pytest.skip("SERVING_CONTRACT_DIR is not set: the models of this server cannot be changed from here")
    return target
