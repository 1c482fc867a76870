"""The gRPC client against a real gRPC server in this process that misbehaves on demand."""

import base64
import time
from collections import deque
from concurrent import futures
from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest

from serving.client import (
    BadResponse,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ServerUnavailable,
    Unauthenticated,
    Unimplemented,
)
from serving.client.grpc import GrpcServingClient
from serving.client.protos import DT_FLOAT, DT_INT64, DT_STRING, MESSAGES

USER, PASSWORD = "ada", "päss-wörd-of-32-characters-length"
NAMES = [b"Coat", b"Shirt"]


@dataclass
class FakeGrpc:
    """A model of two classes behind a password."""

    faults: deque = field(default_factory=deque)
    requests: list = field(default_factory=list)
    extra_floats: int = 0
    as_content: bool = False
    url: str = ""

    def client(self, **options) -> GrpcServingClient:
        return GrpcServingClient(self.url, **{"user": USER, "password": PASSWORD, **options})

    def predict(self, request, context):
        self._admit(request, context)
        n = len(request.inputs[next(iter(request.inputs))].string_val)
        response = MESSAGES["PredictResponse"]()
        response.model_spec.version.value = request.model_spec.version.value or 5
        signature = request.model_spec.signature_name
        if signature == "classify":
            self._fill(response, "classes", DT_STRING, (n, 2), NAMES[::-1] * n)
            self._fill(response, "scores", DT_FLOAT, (n, 2), [0.75, 0.25] * n)
            return response
        self._fill(response, "class_id", DT_INT64, (n,), [1] * n)
        self._fill(response, "class_name", DT_STRING, (n,), [b"Shirt"] * n)
        self._fill(response, "probabilities", DT_FLOAT, (n, 2), [0.25, 0.75] * n)
        if signature == "explain":
            self._fill(response, "cams", DT_FLOAT, (n, 2, 3, 3), range(n * 18))
        if self.extra_floats:
            self._fill(response, "extra", DT_FLOAT, (self.extra_floats,), np.zeros(self.extra_floats))
        return response

    def status(self, request, context):
        self._admit(request, context)
        response = MESSAGES["GetModelStatusResponse"]()
        for version, state in ((3, 50), (5, 30)):
            entry = response.model_version_status.add(version=version, state=state)
            entry.status.error_code = 3 if state == 50 else 0
        return response

    def _admit(self, request, context):
        self.requests.append(request)
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.faults:
            fault = self.faults.popleft()
            if isinstance(fault, float):
                time.sleep(fault)
            elif fault is not None:
                context.abort(fault, "on purpose")
        if dict(context.invocation_metadata()).get("authorization") != expected:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")

    def _fill(self, response, name, dtype, shape, values):
        tensor = response.outputs[name]
        tensor.dtype = dtype
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
        if self.as_content and dtype != DT_STRING:
            kind = np.float32 if dtype == DT_FLOAT else np.int64
            tensor.tensor_content = np.array(list(values), kind).tobytes()
        else:
            fields = {DT_FLOAT: "float_val", DT_INT64: "int64_val", DT_STRING: "string_val"}
            getattr(tensor, fields[dtype]).extend(values)


@pytest.fixture
def fake_grpc():
    fake = FakeGrpc()
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    for service, method, handler in (
        ("PredictionService", "Predict", fake.predict),
        ("ModelService", "GetModelStatus", fake.status),
    ):
        request = "PredictRequest" if method == "Predict" else "GetModelStatusRequest"
        rpc = grpc.unary_unary_rpc_method_handler(
            handler, MESSAGES[request].FromString, lambda response: response.SerializeToString()
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(f"tensorflow.serving.{service}", {method: rpc}),)
        )
    fake.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield fake
    server.stop(0).wait()


@pytest.mark.parametrize("as_content", [False, True])
def test_results_are_those_of_rest(fake_grpc, png, as_content):
    fake_grpc.as_content = as_content
    with fake_grpc.client() as client:
        first, second = client.explain([png(), png()])
        assert client.classes() == ("Coat", "Shirt")
    assert (first.class_id, first.class_name, first.version) == (1, "Shirt", 5)
    np.testing.assert_array_equal(first.probabilities, np.float32([0.25, 0.75]))
    np.testing.assert_array_equal(second.cams, np.arange(18, 36).reshape(2, 3, 3))
    assert first.latency_ms > 0


def test_status_is_highest_first(fake_grpc):
    with fake_grpc.client() as client:
        assert [(s.version, s.state, s.error_code) for s in client.status()] == [
            (5, "AVAILABLE", "OK"),
            (3, "END", "INVALID_ARGUMENT"),
        ]


def test_version_and_label_are_sent(fake_grpc, png):
    with fake_grpc.client(label="stable") as client:
        client.predict(png())
        assert client.predict(png(), version=2)[0].version == 2
    labelled, numbered = fake_grpc.requests
    assert (labelled.model_spec.version_label, labelled.model_spec.HasField("version")) == ("stable", False)
    assert (numbered.model_spec.version_label, numbered.model_spec.version.value) == ("", 2)


def test_unavailable_is_asked_again_also_with_a_large_request(fake_grpc, png):
    fake_grpc.faults += [grpc.StatusCode.UNAVAILABLE] * 3
    with fake_grpc.client() as client:
        assert client.predict(png() + b"\0" * 2_000_000)[0].class_id == 1
    assert len(fake_grpc.requests) == 4


def test_other_codes_are_not_asked_again(fake_grpc, png):
    fake_grpc.faults += [grpc.StatusCode.INTERNAL] * 2
    with fake_grpc.client() as client, pytest.raises(InternalError, match="on purpose") as caught:
        client.predict(png())
    assert caught.value.grpc_code == "INTERNAL"
    assert len(fake_grpc.faults) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgument),
        (grpc.StatusCode.FAILED_PRECONDITION, InvalidArgument),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted),
        (grpc.StatusCode.UNIMPLEMENTED, Unimplemented),
        (grpc.StatusCode.DATA_LOSS, InternalError),
    ],
)
def test_codes_become_the_same_errors(fake_grpc, png, code, kind):
    fake_grpc.faults.append(code)
    with fake_grpc.client() as client, pytest.raises(kind):
        client.predict(png())


def test_refused_image_is_named(fake_grpc, png):
    refused = grpc.StatusCode.INVALID_ARGUMENT
    fake_grpc.faults += [refused, None, refused]  # all four; 0 and 1 pass; 2 alone
    with fake_grpc.client() as client, pytest.raises(InvalidArgument, match="image 2: on purpose") as caught:
        client.predict([png()] * 4)
    assert (caught.value.index, caught.value.grpc_code) == (2, "INVALID_ARGUMENT")


@pytest.mark.parametrize("password", [None, "wrong"])
def test_wrong_or_no_password(fake_grpc, png, password):
    user = None if password is None else "ada"
    with fake_grpc.client(user=user, password=password) as client, pytest.raises(Unauthenticated) as caught:
        client.predict(png())
    assert ("needed" if password is None else "wrong") in str(caught.value)


def test_slow_answer_is_a_deadline(fake_grpc, png):
    fake_grpc.faults.append(1.0)
    with fake_grpc.client(timeout_s=0.2) as client, pytest.raises(DeadlineExceeded, match=r"within 0\.2 s"):
        client.predict(png())


def test_nobody_there(png):
    with GrpcServingClient("http://127.0.0.1:9", timeout_s=5, retries=0) as client, pytest.raises(ServerUnavailable):
        client.predict(png())


def test_a_web_server_is_not_mistaken_for_a_model(fake, png):
    with GrpcServingClient(fake.url, timeout_s=3, retries=0) as client, pytest.raises(ServerUnavailable):
        client.predict(png())


def test_answers_beyond_4_mb_arrive(fake_grpc, png):
    fake_grpc.extra_floats = 2_000_000
    with fake_grpc.client() as client:
        assert client.predict(png())[0].class_id == 1


def test_misshapen_tensor_is_a_bad_response(fake_grpc, png, monkeypatch):
    monkeypatch.setattr("serving.client.grpc._VALUES", {})
    with fake_grpc.client() as client, pytest.raises(BadResponse, match="cannot read a tensor of DT_(INT64|FLOAT)"):
        client.predict(png())


def test_impossible_settings_are_refused_at_once():
    with pytest.raises(ValueError, match="no path"):
        GrpcServingClient("http://127.0.0.1:1/prefix")
    with pytest.raises(ValueError, match="cannot skip"):
        GrpcServingClient("https://127.0.0.1:1", verify=False)
    with pytest.raises(ValueError, match="do not belong in the URL"):
        GrpcServingClient("http://ada:secret@127.0.0.1:1")


def test_password_shows_nowhere(fake_grpc, png):
    fake_grpc.faults.append(grpc.StatusCode.INTERNAL)
    with fake_grpc.client() as client:
        assert PASSWORD not in repr(client)
        with pytest.raises(InternalError) as caught:
            client.predict(png())
    assert PASSWORD not in repr(caught.value)
