"""gRPC through a real nginx: every refusal is a gRPC status, every backend status passes through."""

from __future__ import annotations

from base64 import b64encode
from concurrent import futures

import grpc
import pytest

PREDICT = "/tensorflow.serving.PredictionService/Predict"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
UNKNOWN = [
    "/tensorflow.serving.ModelService/Other", "/tensorflow.serving.SessionService/SessionRun", "/any.Service/Method",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/v1/models", "/",
]  # fmt: skip


def login(user, password):
    return (("authorization", "Basic " + b64encode(f"{user}:{password}".encode()).decode()),)


@pytest.fixture(scope="module")
def channel(gateway):
    with grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as opened:
        yield opened


@pytest.fixture
def right(gateway):
    return login(*gateway.auth)


def call(channel, method, request=b"x", metadata=None):
    return channel.unary_unary(method)(request, metadata=metadata, timeout=30)


def status_of(channel, method, request=b"x", metadata=None):
    with pytest.raises(grpc.RpcError) as failure:
        call(channel, method, request, metadata)
    return failure.value.code(), failure.value.details()


@pytest.mark.parametrize("method", [PREDICT, STATUS,
                                    "/tensorflow.serving.PredictionService/GetModelMetadata",
                                    "/tensorflow.serving.PredictionService/MultiInference"])  # fmt: skip
def test_calls_reach_the_model_server_without_the_password(channel, rpc, gateway, right, method):
    metadata = (*right, ("cookie", "vitrine_stream=1.x"), ("x-own", "kept"))
    assert call(channel, method, b"hello", metadata) == b"hello"
    seen, headers = rpc.last()
    assert seen == method
    assert headers["x-own"] == "kept"
    assert "authorization" not in headers
    assert "cookie" not in headers
    assert gateway.password not in str(headers)


@pytest.mark.parametrize("metadata", [
    None, login("vitrine", "wrong"), login("nobody", "wrong"), (("authorization", "Bearer x"),),
    (("cookie", "vitrine_stream=1.x"),),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("method", [PREDICT, STATUS, RELOAD, *UNKNOWN])
def test_unauthenticated(channel, rpc, method, metadata):
    before = len(rpc.seen)
    code, details = status_of(channel, method, metadata=metadata)
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert "password" in details
    assert len(rpc.seen) == before


def test_reloading_the_configuration_is_forbidden(channel, rpc, right):
    before = len(rpc.seen)
    assert status_of(channel, RELOAD, metadata=right)[0] == grpc.StatusCode.PERMISSION_DENIED
    assert len(rpc.seen) == before


@pytest.mark.parametrize("method", UNKNOWN)
def test_unknown_methods(channel, rpc, right, method):
    before = len(rpc.seen)
    assert status_of(channel, method, metadata=right)[0] == grpc.StatusCode.UNIMPLEMENTED
    assert len(rpc.seen) == before


def test_too_large(channel, rpc, right):
    assert len(call(channel, PREDICT, b"x" * 4_000_000, right)) == 4_000_000
    code, details = status_of(channel, PREDICT, b"x" * (10 * 1024 * 1024 + 1), right)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "10 MB" in details


def test_backend_statuses_pass_through(channel, right):
    assert status_of(channel, PREDICT, b"missing", right) == (grpc.StatusCode.NOT_FOUND, "Servable not found")


def test_backend_away(lonely):
    with grpc.insecure_channel(f"127.0.0.1:{lonely.port}") as channel:
        code, details = status_of(channel, PREDICT, metadata=login(*lonely.auth))
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "cannot be reached" in details


def test_backend_too_slow(channel, right):
    assert status_of(channel, PREDICT, b"slow", right)[0] == grpc.StatusCode.DEADLINE_EXCEEDED


def test_too_many_calls_from_one_address(start_gateway, ports):
    with start_gateway(**ports, GATEWAY_MAX_CONNECTIONS=1) as small:
        right = login(*small.auth)
        with grpc.insecure_channel(f"127.0.0.1:{small.port}") as channel, futures.ThreadPoolExecutor(6) as pool:
            codes = set(pool.map(lambda _: _code(channel, right), range(6)))
    assert grpc.StatusCode.RESOURCE_EXHAUSTED in codes


def _code(channel, metadata):
    try:
        call(channel, PREDICT, b"slow", metadata)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_one_connection_carries_more_than_nginx_default_of_1000_requests(channel, right):
    with futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: call(channel, PREDICT, b"%d" % number, right), range(2500)))
    assert answers == [b"%d" % number for number in range(2500)]
