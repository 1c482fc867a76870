"""Who gets where: every face, without a password, with a wrong one, with the right one."""

from __future__ import annotations

import base64

import grpc
import numpy as np
import pytest
import requests
from stack_helpers import PASSWORD, USER

from serving.client import ServingClient, Unauthenticated
from serving.client.grpc import GrpcServingClient

REST = ["/v1/models/fashion_mnist", "/v1/models/fashion_mnist/metadata", "/", "/_stcore/health"]
WRONG = [None, (USER, "wrong"), ("nobody", PASSWORD), ("admin", "password")]


@pytest.mark.parametrize("path", REST)
def test_right_password_opens(stack, path):
    assert requests.get(stack.url + path, auth=stack.auth, timeout=60).status_code == 200


@pytest.mark.parametrize("auth", WRONG)
@pytest.mark.parametrize("path", [*REST, "/healthz/x", "/monitoring/prometheus/metrics"])
def test_wrong_password_does_not(stack, path, auth):
    response = requests.get(stack.url + path, auth=auth, timeout=60)
    assert response.status_code == 401
    assert "Basic" in response.headers["WWW-Authenticate"]


def test_health_is_open(stack):
    assert requests.get(stack.url + "/healthz", timeout=60).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/monitoring/prometheus/metrics"),
        ("GET", "/v1/models"),
        ("POST", "/v1/models/fashion_mnist"),
        ("GET", "/v1/models/fashion_mnist:predict"),
        ("DELETE", "/v1/models/fashion_mnist"),
        ("POST", "/v1/config"),
    ],
)
def test_what_is_not_offered_is_not_reachable(stack, method, path):
    response = requests.request(method, stack.url + path, auth=stack.auth, timeout=60)
    assert response.status_code in (403, 404, 405)
    assert "error" in response.json()


def call(stack, method: str, auth: tuple[str, str] | None) -> grpc.StatusCode:
    """The status of a call with an empty message."""
    metadata = []
    if auth:
        metadata.append(("authorization", "Basic " + base64.b64encode(":".join(auth).encode()).decode()))
    with grpc.insecure_channel(f"127.0.0.1:{stack.port}") as channel:
        try:
            channel.unary_unary(f"/tensorflow.serving.{method}")(b"", metadata=metadata, timeout=60)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


@pytest.mark.parametrize("auth", WRONG)
@pytest.mark.parametrize("method", ["PredictionService/Predict", "ModelService/GetModelStatus"])
def test_grpc_wants_the_password(stack, method, auth):
    assert call(stack, method, auth) == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("PredictionService/Predict", grpc.StatusCode.INVALID_ARGUMENT),  # reached: an empty request lacks its model
        ("ModelService/GetModelStatus", grpc.StatusCode.INVALID_ARGUMENT),
        ("ModelService/HandleReloadConfigRequest", grpc.StatusCode.PERMISSION_DENIED),
        ("PredictionService/Nothing", grpc.StatusCode.UNIMPLEMENTED),
    ],
)
def test_grpc_methods(stack, method, expected):
    assert call(stack, method, stack.auth) == expected


@pytest.mark.parametrize("kind", [ServingClient, GrpcServingClient])
def test_the_client_says_that_the_password_is_wrong(stack, kind):
    with kind(stack.url, stack.user, "wrong-password", timeout_s=60) as client, pytest.raises(Unauthenticated):
        client.predict(np.zeros((28, 28), np.uint8))
