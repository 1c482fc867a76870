"""What happens to a server itself: killed, its disk full, its versions deleted, its config reloaded in a storm."""

from __future__ import annotations

import dataclasses
import resource
import shutil
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fuzz
import grpc
import pytest
import requests
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

GOOD, GOOD_ANSWER = {"instances": [3]}, {"predictions": [3.5]}


@pytest.fixture(scope="module")
def base(toolbox: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chaos")
    for name in ("m", "other"):
        toolbox.publish(path / name, 1)
    return path


@pytest.fixture(scope="module")
def target(base: Path, start: Any) -> Any:
    return start("--model_name=m", f"--model_base_path={base / 'm'}", "--file_system_poll_wait_seconds=1")


@contextmanager
def codes_of_good_requests(target: Any) -> Iterator[Counter[int]]:
    """Send good requests all the time; counts the answers by status."""
    codes: Counter[int] = Counter()
    stop = threading.Event()

    def ask() -> None:
        with requests.Session() as session:
            while not stop.wait(0.002):
                answer = session.post(f"{target.base}/v1/models/m:predict", json=GOOD, timeout=60)
                codes[answer.status_code] += 1
                assert answer.status_code != 200 or answer.json() == GOOD_ANSWER

    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(ask) for _ in range(3)]
        try:
            yield codes
        finally:
            stop.set()
    for client in clients:
        client.result()


def test_a_storm_of_reloads_while_requests_flow(target: Any, base: Path) -> None:
    broken = config(base, "m", "m")  # a name twice
    with target.channel() as channel, fuzz.Bystander(target) as bystander:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        calls = [
            stub.HandleReloadConfigRequest.future(request, timeout=60)
            for _ in range(10)
            for request in (config(base, "m", "other"), broken, config(base, "m"))
        ]
        outcomes = Counter(_code(call) for call in calls)
        assert stub.HandleReloadConfigRequest(config(base, "m"), timeout=60).status.error_code == 0
    assert outcomes == {"OK": 20, "INVALID_ARGUMENT": 10}
    assert not bystander.failures
    assert target.states()[1] == "AVAILABLE"


def test_a_reload_stops_waiting_for_a_model_that_another_one_drops(target: Any, base: Path, toolbox: Any) -> None:
    (base / "empty").mkdir()
    with target.channel() as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        waiting = stub.HandleReloadConfigRequest.future(config(base, "m", "empty"), timeout=60)
        toolbox.wait_until(lambda: "No versions of servable empty" in target.log.read_text(errors="replace"))
        stub.HandleReloadConfigRequest(config(base, "m"), timeout=60)
        assert _code(waiting) == "OK"


def config(base: Path, *names: str) -> model_management_pb2.ReloadConfigRequest:
    request = model_management_pb2.ReloadConfigRequest()
    for name in names:
        request.config.model_config_list.config.add(name=name, base_path=str(base / name), model_platform="tensorflow")
    return request


def _code(call: Any) -> str:
    try:
        call.result()
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def test_a_version_deleted_while_it_serves_and_published_again(target: Any, base: Path, toolbox: Any) -> None:
    with codes_of_good_requests(target) as codes:
        toolbox.wait_until(lambda: codes[200] > 10)
        shutil.rmtree(base / "m" / "1")
        toolbox.wait_until(lambda: target.states() == {1: "END"}, what="the version to be unloaded")
        toolbox.wait_until(lambda: codes[404] > 10)
        toolbox.publish(base / "m", 1)
        toolbox.wait_until(lambda: target.states() == {1: "AVAILABLE"}, what="the version to come back")
        before = codes[200]
        toolbox.wait_until(lambda: codes[200] > before + 10)
    assert codes.keys() == {200, 404}


def test_nothing_more_can_be_written(target: Any) -> None:
    """A log on a full disk, in effect: what is to be logged is lost, nothing else."""
    pid = target.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        with fuzz.Bystander(target) as bystander:
            report = fuzz.run(target, 100, seed=7)
        assert not report.failures
        assert not bystander.failures
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


def test_killed_it_starts_again_on_the_same_ports_even_with_a_full_disk(target: Any, base: Path, toolbox: Any) -> None:
    with socket.create_connection(("127.0.0.1", target.rest_port), timeout=60) as open_connection:
        with codes_of_good_requests_until_death(target):
            target.process.kill()
            target.process.wait(60)
        assert open_connection.recv(1) == b""
    flags = ["--model_name=m", f"--model_base_path={base / 'm'}"]
    again = toolbox.launch(Path("/dev/full"), *flags, f"--port={target.port}", f"--rest_api_port={target.rest_port}")
    again = dataclasses.replace(again, port=target.port, rest_port=target.rest_port)
    try:

        def answers() -> bool:
            assert again.process.poll() is None
            with requests.Session() as session:
                try:
                    return bool(session.post(f"{again.base}/v1/models/m:predict", json=GOOD, timeout=60).ok)
                except requests.ConnectionError:
                    return False

        toolbox.wait_until(answers, what="the second server")
        report = fuzz.run(again, 100, seed=8)
        assert not report.failures
        assert not report.good_failures
        assert again.stop() == 0
    finally:
        again.process.kill()
        again.process.wait(60)


@contextmanager
def codes_of_good_requests_until_death(target: Any) -> Iterator[None]:
    """A client in the middle of a request when the server dies gets an error of the connection, no wrong answer."""
    answers, errors = Counter[int](), []

    def ask() -> None:
        with requests.Session() as session:
            while not errors:
                try:
                    answers[session.post(f"{target.base}/v1/models/m:predict", json=GOOD, timeout=60).status_code] += 1
                except requests.ConnectionError as error:
                    errors.append(error)

    client = threading.Thread(target=ask)
    client.start()
    yield
    client.join(60)
    assert errors
    assert answers.keys() <= {200}
