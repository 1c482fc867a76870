"""Reloads, the end of a server and the memory of replaced versions; what versions do is in the contract tests."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import weakref
from pathlib import Path
from typing import Any

import pytest
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

from serving.embedded import setup
from serving.embedded.flags import Flags
from serving.embedded.model_config import ModelSettings
from serving.embedded.servable import Servable
from serving.embedded.server import ModelServer
from serving.embedded.versions import LoadPolicy, State, VersionManager


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, toolbox: Any) -> Path:
    directory = tmp_path_factory.mktemp("lifecycle") / "m"
    toolbox.publish(directory, 1)
    return directory


@pytest.fixture(scope="module")
def changing(start: Any, base: Path) -> Any:
    """A server whose versions the tests below change, one after the other."""
    return start("--model_name=m", f"--model_base_path={base}", "--rest_api_timeout_in_ms=8000")


class Nothing:
    """A version in memory, without a graph."""

    model: Any = "a model"

    def close(self) -> None:
        pass


def test_a_model_that_comes_back_while_it_is_unloaded_is_loaded_again(base: Path, toolbox: Any) -> None:
    loads: list[int] = []

    def load(_name: str, version: int, _path: Path) -> Nothing:
        loads.append(version)
        return Nothing()

    manager = VersionManager(load, LoadPolicy())
    models = {"m": ModelSettings("m", base)}
    manager.configure(models)
    with manager.use("m"):  # a request that takes its time
        manager.configure({})
        assert manager.configure(models) == {"m"}
        assert [status.state for status in manager.status("m")] == [State.UNLOADING]
    toolbox.wait_until(lambda: manager.status("m")[0].state == State.AVAILABLE)
    with manager.use("m") as model:
        assert model == "a model"
    assert loads == [1, 1]
    manager.stop()


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
    assert changing.post("m:predict", {"instances": [0.0]}).json() == {"predictions": [2.0]}


def test_a_rest_request_that_takes_too_long(changing: Any) -> None:
    answer = changing.post("m:predict", {"signature_name": "slow", "instances": [1e9]})
    assert (answer.status_code, answer.json()) == (504, {"error": "Timed out waiting for notification"})


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
