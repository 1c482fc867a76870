"""Versions come and go while requests flow."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import threading
import weakref
from pathlib import Path
from typing import Any

import grpc
import pytest
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

from serving.embedded import setup
from serving.embedded.flags import Flags
from serving.embedded.servable import Servable
from serving.embedded.server import ModelServer

FAST = ("--max_num_load_retries=0", "--file_system_poll_wait_seconds=1")


class Load:
    """Keeps asking a model, and keeps what it got."""

    def __init__(self, server: Any, path: str = "m:predict") -> None:
        self.answers: list[tuple[int, str]] = []
        self._server, self._path = server, path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            answer = self._server.post(self._path, {"instances": [0.0]})
            self.answers.append((answer.status_code, answer.text))
            self._stop.wait(0.01)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, toolbox: Any) -> Path:
    directory = tmp_path_factory.mktemp("lifecycle") / "m"
    toolbox.publish(directory, 1)
    return directory


@pytest.fixture(scope="module")
def changing(start: Any, base: Path) -> Any:
    """A server whose versions the tests below change, one after the other."""
    return start("--model_name=m", f"--model_base_path={base}", *FAST)


def value(server: Any, path: str = "m:predict") -> float:
    return float(server.post(path, {"instances": [0.0]}).json()["predictions"][0])


def test_a_new_version_replaces_the_old_one_with_no_request_failed(changing: Any, base: Path, toolbox: Any) -> None:
    with Load(changing) as load:
        toolbox.wait_until(lambda: len(load.answers) > 5)
        toolbox.publish(base, 2, addend=3)
        toolbox.wait_until(lambda: changing.states() == {1: "END", 2: "AVAILABLE"}, "version 2")
        seen = len(load.answers)
        toolbox.wait_until(lambda: len(load.answers) > seen + 5)
    assert {status for status, _ in load.answers} == {200}
    assert "2.0" in load.answers[0][1]
    assert "3.0" in load.answers[-1][1]
    assert changing.post("m/versions/1:predict", {"instances": [0.0]}).status_code == 404


def test_a_broken_version_leaves_the_old_one_serving(changing: Any, base: Path, toolbox: Any) -> None:
    (base / "3").mkdir()
    (base / "3" / "saved_model.pb").write_bytes(b"no model")
    toolbox.wait_until(lambda: changing.states().get(3) == "END", "the failed load")
    assert changing.states() == {1: "END", 2: "AVAILABLE", 3: "END"}
    entry = changing.get("/v1/models/m/versions/3").json()["model_version_status"][0]
    assert entry["status"]["error_code"] != "OK"
    assert entry["status"]["error_message"]
    assert value(changing) == 3.0
    (base / "4").mkdir()  # empty: not even a model
    toolbox.wait_until(lambda: changing.states().get(4) == "END", "the failed load")
    entry = changing.get("/v1/models/m/versions/4").json()["model_version_status"][0]
    assert entry["status"]["error_code"] == "NOT_FOUND"
    assert (
        "Could not find SavedModel .pb or .pbtxt at supplied export directory path" in entry["status"]["error_message"]
    )
    assert value(changing) == 3.0


def test_a_vanished_version_brings_the_one_below_back(changing: Any, base: Path, toolbox: Any) -> None:
    toolbox.publish(base, 5, addend=2)
    toolbox.wait_until(lambda: changing.states().get(5) == "AVAILABLE", "version 5")
    for version in ("3", "4", "5"):
        shutil.rmtree(base / version)
    toolbox.wait_until(lambda: changing.states().get(2) == "AVAILABLE" and changing.states()[5] == "END", "version 2")
    assert value(changing) == 3.0


def test_reload_with_policies_labels_and_a_second_model(
    changing: Any, base: Path, toolbox: Any, tmp_path: Path
) -> None:
    toolbox.publish(tmp_path / "other", 7)
    request = model_management_pb2.ReloadConfigRequest()
    first = request.config.model_config_list.config.add(name="m", base_path=str(base), model_platform="tensorflow")
    first.model_version_policy.specific.versions.extend([1, 2])
    first.version_labels["stable"] = 2
    second = request.config.model_config_list.config.add(
        name="other", base_path=str(tmp_path / "other"), model_platform="tensorflow"
    )
    with changing.channel() as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        assert stub.HandleReloadConfigRequest(request, timeout=120).status.error_code == 0
        assert value(changing, "other:predict") == 2.0
        assert value(changing, "m/labels/stable:predict") == 3.0
        toolbox.wait_until(lambda: changing.states()[1] == changing.states()[2] == "AVAILABLE", "both versions")
        assert value(changing, "m/versions/1:predict") == 2.0

        first.version_labels["canary"] = 99
        with pytest.raises(grpc.RpcError) as caught:
            stub.HandleReloadConfigRequest(request, timeout=120)
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert "assign label to version 99 of model m" in caught.value.details()
        for field, wrong in (("name", "m"), ("base_path", "relative"), ("model_platform", "")):
            kept = getattr(second, field)
            setattr(second, field, wrong)
            with pytest.raises(grpc.RpcError) as caught:
                stub.HandleReloadConfigRequest(request, timeout=120)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            setattr(second, field, kept)

        del first.version_labels["canary"]
        del request.config.model_config_list.config[1]
        stub.HandleReloadConfigRequest(request, timeout=120)
        toolbox.wait_until(lambda: changing.states("other") == {7: "END"}, "the dropped model's end")
        assert changing.post("other:predict", {"instances": [1]}).status_code == 404


def test_reloads_that_hang_keep_no_other_from_starting(changing: Any, base: Path, tmp_path: Path) -> None:
    """A new model without a version is waited for without end, as in the real server."""

    def config(*models: tuple[str, Path]) -> Any:
        request = model_management_pb2.ReloadConfigRequest()
        for name, path in models:
            request.config.model_config_list.config.add(name=name, base_path=str(path), model_platform="tensorflow")
        return request

    empty = tmp_path / "empty"
    empty.mkdir()
    with changing.channel() as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        more_than_asyncios_threads = 33
        hanging = [
            stub.HandleReloadConfigRequest.future(config(("m", base), (f"empty{number}", empty)), timeout=120)
            for number in range(more_than_asyncios_threads)
        ]
        assert stub.HandleReloadConfigRequest(config(("m", base)), timeout=60).status.error_code == 0
        for call in hanging:
            call.cancel()
    assert value(changing) == 3.0


def test_a_reload_says_why_a_new_model_did_not_load(changing: Any, base: Path, tmp_path: Path) -> None:
    (tmp_path / "bad" / "8").mkdir(parents=True)
    request = model_management_pb2.ReloadConfigRequest()
    for name, path in (("m", base), ("bad", tmp_path / "bad")):
        request.config.model_config_list.config.add(name=name, base_path=str(path), model_platform="tensorflow")
    with changing.channel() as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.HandleReloadConfigRequest(request, timeout=60)
        assert caught.value.code() == grpc.StatusCode.UNKNOWN
        assert caught.value.details().startswith(
            "1 model(s) did not become available: {{{name: bad version: 8} due to error: NOT_FOUND: Could not find"
        )
        # "bad" is no longer new, and does not stand in the way of what else is asked for.
        assert stub.HandleReloadConfigRequest(request, timeout=60).status.error_code == 0


def test_a_graceful_stop_finishes_what_is_in_flight(changing: Any) -> None:
    """The last test of this server."""
    body = b'{"signature_name": "slow", "instances": [10000]}'
    head = "POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", changing.rest_port), timeout=60) as raw:
        raw.sendall(head.format(len(body)).encode())
        assert raw.recv(1000).startswith(b"HTTP/1.1 100")  # the server has the request, and reads on
        raw.sendall(body)
        assert changing.stop() == 0
        answer = http.client.HTTPResponse(raw)
        answer.begin()
        assert json.loads(answer.read()) == {"predictions": [10000.0]}
    assert "Traceback" not in changing.log.read_text()


def test_a_replaced_version_leaves_the_memory(toolbox: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first version too: what the garbage collector does not see (gc.freeze) would stay until the end."""
    graphs: list[weakref.ref[Any]] = []
    make = Servable.__init__

    def remember(self: Servable, session: Any, meta_graph: Any) -> None:
        graphs.append(weakref.ref(session.graph))
        make(self, session, meta_graph)

    monkeypatch.setattr(Servable, "__init__", remember)
    toolbox.publish(tmp_path / "m", 1)
    settings = Flags(port=0, rest_api_port=0, model_base_path=str(tmp_path / "m"))

    async def swap() -> None:
        running = asyncio.ensure_future(ModelServer(settings, setup.prepare(settings)).run())
        try:
            await asyncio.to_thread(toolbox.wait_until, lambda: graphs, "version 1")
            toolbox.publish(tmp_path / "m", 2, addend=3)
            await asyncio.to_thread(toolbox.wait_until, lambda: graphs[0]() is None, "the end of version 1")
            assert graphs[1]() is not None
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            await running

    asyncio.run(swap())
