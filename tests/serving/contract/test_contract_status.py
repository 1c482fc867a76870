"""Status, metadata, version policies and the prometheus page."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest

AVAILABLE = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


@pytest.mark.parametrize(
    ("path", "versions"),
    [
        ("rules", [1]),
        ("rules/versions/1", [1]),
        ("%72ules", [1]),
        ("plain", [3]),
        ("every", [3, 2, 1]),
        ("every/versions/2", [2]),
        ("two", [3, 2]),
        ("some", [3, 1]),
        # Labels are not looked at.
        ("every/labels/stable", [3, 2, 1]),
        ("every/labels/none", [3, 2, 1]),
    ],
)
def test_status_highest_version_first(any_target: Any, path: str, versions: list[int]) -> None:
    answer = any_target.get(f"/v1/models/{path}")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {"model_version_status": [{"version": str(version), **AVAILABLE} for version in versions]}


def test_layout_of_a_status(target: Any) -> None:
    assert target.get("/v1/models/rules").text == (
        '{\n "model_version_status": [\n  {\n   "version": "1",\n   "state": "AVAILABLE",\n   "status": {\n'
        '    "error_code": "OK",\n    "error_message": ""\n   }\n  }\n ]\n}\n'
    )


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v1/models", 400, "Missing model name in request."),
        ("/v1/models/metadata", 404, "Could not find any versions of model metadata"),
        ("/v1/models/nope", 404, "Could not find any versions of model nope"),
        ("/v1/models/nope/versions/1", 404, "Could not find version 1 of model nope"),
        ("/v1/models/rules/versions/9", 404, "Could not find version 9 of model rules"),
        ("/v1/models/plain/versions/2", 404, "Could not find version 2 of model plain"),
        ("/v1/models/every/versions/9", 404, "Could not find version 9 of model every"),
        ("/v1/models/rules?x=1", 404, "Could not find any versions of model rules?x=1"),
        ("/v1/models/a%20b", 404, "Could not find any versions of model a b"),
        ("/v1/models/nope/metadata", 404, "Servable not found for request: Latest(nope)"),
        ("/v1/models/rules/versions/9/metadata", 404, "Servable not found for request: Specific(rules, 9)"),
        ("/v1/models/every/labels/x/metadata", 400, "Unrecognized servable version label: x"),
        ("/v1/models/nope/labels/x/metadata", 400, "Unrecognized servable version label: x"),
    ],
)
def test_errors(any_target: Any, path: str, status: int, error: str) -> None:
    answer = any_target.get(path)
    assert (answer.status_code, answer.json()) == (status, {"error": error})


@pytest.mark.parametrize(
    ("path", "version"),
    [("rules", 1), ("every", 3), ("every/versions/2", 2), ("every/labels/stable", 1), ("two", 3)],
)
def test_metadata(any_target: Any, path: str, version: int) -> None:
    answer = any_target.get(f"/v1/models/{path}/metadata")
    assert answer.status_code == 200
    assert answer.text.startswith('{\n"model_spec":{\n "')
    document = answer.json()
    assert list(document) == ["model_spec", "metadata"]
    assert document["model_spec"] == {"name": path.split("/")[0], "signature_name": "", "version": str(version)}
    signatures = document["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "__saved_model_init_op"} <= set(signatures)


def test_a_signature_in_the_metadata(target: Any) -> None:
    signatures = json.loads(target.get("/v1/models/rules/metadata").text)["metadata"]["signature_def"]["signature_def"]
    two = signatures["two"]
    assert two["method_name"] == "tensorflow/serving/predict"
    assert two["inputs"]["a"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
        "name": "two_a:0",
    }
    assert two["inputs"]["b"]["dtype"] == "DT_INT32"
    assert list(two["defaults"]) == ["b"]
    assert signatures["serving_default"]["inputs"]["x"]["tensor_shape"] == {"dim": [], "unknown_rank": True}
    assert signatures["serving_default"]["defaults"] == {}


def test_status_over_grpc(any_target: Any) -> None:
    assert any_target.status("every") == dict.fromkeys((3, 2, 1), ("AVAILABLE", 0, ""))
    request = GetModelStatusRequest()
    assert any_target.failure(any_target.models.GetModelStatus, request) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    request.model_spec.name = "every"
    answer = any_target.models.GetModelStatus(request, timeout=60)
    assert [one.version for one in answer.model_version_status] == [3, 2, 1]
    request.model_spec.version_label = "none"  # not looked at
    assert len(any_target.models.GetModelStatus(request, timeout=60).model_version_status) == 3
    request.model_spec.version.value = 7
    assert any_target.failure(any_target.models.GetModelStatus, request) == (
        "NOT_FOUND", "Could not find version 7 of model every")  # fmt: skip
    request.model_spec.name = ""
    request.model_spec.ClearField("version")
    assert any_target.failure(any_target.models.GetModelStatus, request) == (
        "NOT_FOUND", "Could not find any versions of model ")  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "model", "status"),
    [
        ("POST", "rules:predict", "rules", "OK"),
        ("POST", "rules/versions/9:predict", "rules", "NOT_FOUND"),
        ("POST", "every/labels/x:predict", "every", "INVALID_ARGUMENT"),
        ("POST", "%6eope:predict", "nope", "NOT_FOUND"),
        ("GET", "rules", "rules", "OK"),
        ("GET", "nope", "nope", "NOT_FOUND"),
        ("GET", "rules/metadata", "rules", "OK"),
        ("POST", "rules:run", "", "INVALID_ARGUMENT"),
        ("POST", "rules:PREDICT", "rules", "INVALID_ARGUMENT"),
        ("GET", f"rules/versions/{2**63}", "rules", "INVALID_ARGUMENT"),
        ("OPTIONS", "rules", "", "FAILED_PRECONDITION"),
    ],
)
def test_rest_calls_are_counted(any_target: Any, method: str, path: str, model: str, status: str) -> None:
    before = any_target.metric("request_count", model_name=model, status=status)
    any_target.session.request(method, f"{any_target.url}/v1/models/{path}", data=b'{"instances": [1]}', timeout=60)
    assert any_target.metric("request_count", model_name=model, status=status) == before + 1


def test_grpc_calls_are_counted(any_target: Any) -> None:
    before = any_target.metric("request_count", model_name="rules", status="FAILED_PRECONDITION")
    any_target.failure(any_target.prediction.Predict, any_target.predict("rules", "no"))
    assert any_target.metric("request_count", model_name="rules", status="FAILED_PRECONDITION") == before + 1


@pytest.mark.parametrize(("name", "labels"), [
    ("request_latency", {"model_name": "rules", "API": "predict", "entrypoint": "REST"}),
    ("request_latency", {"model_name": "rules", "API": "Predict", "entrypoint": "GRPC"}),
    ("runtime_latency", {"model_name": "rules", "API": "Predict", "runtime": "TF1"}),
])  # fmt: skip
def test_latencies_of_successes(any_target: Any, name: str, labels: dict[str, str]) -> None:
    def call() -> None:
        if labels.get("entrypoint") == "GRPC":
            any_target.prediction.Predict(any_target.predict("rules", x=[1.0]), timeout=60)
            any_target.failure(any_target.prediction.Predict, any_target.predict("rules", x=["a"]))
        else:
            assert any_target.post("rules:predict", {"instances": [1]}).status_code == 200
            assert any_target.post("rules:predict", {"instances": ["a"]}).status_code == 400

    count, total = any_target.metric(f"{name}_count", **labels), any_target.metric(f"{name}_sum", **labels)
    call()
    assert any_target.metric(f"{name}_count", **labels) == count + 1
    assert any_target.metric(f"{name}_sum", **labels) > total
    page = any_target.get("/monitoring/prometheus/metrics").text
    inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
    buckets = [line for line in page.splitlines() if line.startswith(f":tensorflow:serving:{name}_bucket{{{inner},le=")]
    limits = [line.split('le="')[1].split('"')[0] for line in buckets]
    assert limits == [f"{10 * 1.8**power:g}" for power in range(33)] + ["+Inf"]
    counts = [int(line.rsplit(" ", 1)[1]) for line in buckets]
    assert counts == sorted(counts)
    assert counts[-1] == count + 1


def test_the_prometheus_page(any_target: Any) -> None:
    answer = any_target.get("/monitoring/prometheus/metrics")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/plain")
    lines = answer.text.splitlines()
    for name, kind in (
        ("request_count", "counter"),
        ("request_latency", "histogram"),
        ("runtime_latency", "histogram"),
        ("request_example_count_total", "counter"),
        ("request_example_counts", "histogram"),
        ("model_warmup_latency", "histogram"),
    ):
        assert f"# TYPE :tensorflow:serving:{name} {kind}" in lines
    assert not any(line.startswith("# HELP") for line in lines)
    assert answer.text.endswith("\n")
    answer = any_target.get("/monitoring/prometheus/metrics?x=1")
    assert (answer.status_code, answer.text) == (
        400,
        "Unexpected path: /monitoring/prometheus/metrics?x=1. Should be /monitoring/prometheus/metrics",
    )


def test_batches_are_measured(targets: Any) -> None:
    batching = targets(True)

    def seen() -> tuple[float, ...]:
        return (
            batching.metric("batching_session:input_batch_size_sum"),
            batching.metric("batching_session:processed_batch_size_sum"),
            batching.metric("batching_session:padding_size_count", execution_batch_size="3"),
            batching.metric("batching_session:queuing_latency_count", thread_pool_name=""),
            batching.metric("batching_session:wrapped_run_count"),
        )

    before = seen()
    assert batching.post("rules:predict", {"instances": [1, 2, 3]}).status_code == 200
    assert tuple(now - then for now, then in zip(seen(), before, strict=True)) == (3, 3, 1, 1, 1)


def test_a_quote_in_a_label_is_escaped(target: Any) -> None:
    target.get("/v1/models/a%22b%5Cc")
    assert target.metric("request_count", model_name='a\\"b\\\\c', status="NOT_FOUND") >= 1
