"""The REST face of a real server process."""

from __future__ import annotations

import base64
import gzip
import http.client
import io
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image


def png(height: int = 3) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (4, height)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("path", ["m:predict", "m/versions/1:predict", "%6d:predict"])
def test_predict(server: Any, path: str) -> None:
    answer = server.post(path, {"instances": [1, 2.5]})
    assert (answer.status_code, answer.json()) == (200, {"predictions": [2.5, 3.25]})
    assert answer.headers["Content-Type"] == "application/json"
    assert server.post(path, {"inputs": [[1.0, 3.0]]}).json() == {"outputs": [[2.5, 3.5]]}


def test_several_outputs_and_bytes(server: Any) -> None:
    answer = server.post("m:predict", {"signature_name": "two", "instances": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]})
    assert answer.json() == {"predictions": [{"total": 3.0, "twice": 4}, {"total": 7.0, "twice": 8}]}
    answer = server.post("m:predict", {"signature_name": "strings", "inputs": ["Ab", {"b64": "/+8="}]})
    outputs = json.loads(answer.content.decode("utf-8", "surrogateescape"))["outputs"]
    assert outputs["raw_bytes"] == [{"b64": "QWI="}, {"b64": "/+8="}]
    assert outputs["text"] == ["ab", "\udcff\udcef"]


@pytest.mark.parametrize(
    ("kind", "values"),
    [("float64", [0.1, 1e300]), ("int8", [-1]), ("int16", [-300]), ("int32", [7]), ("int64", [-(2**63)]), 
     ("uint8", [255]), ("uint32", [2**32 - 1]), ("uint64", [2**64 - 1]), ("bool", [True, False])],
)  # fmt: skip
def test_every_type_comes_back(server: Any, kind: str, values: list[Any]) -> None:
    answer = server.post("m:predict", {"signature_name": f"echo_{kind}", "instances": values})
    assert answer.json() == {"predictions": values}


def test_types_without_json_are_unimplemented(server: Any) -> None:
    answer = server.post("m:predict", {"signature_name": "echo_half", "inputs": [1.0]})
    assert answer.status_code == 501
    assert "Conversion of JSON Value: 1.0 to type: half" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("nope:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(nope)"),
        ("m/versions/9:predict", {"instances": [1]}, 404, "Servable not found for request: Specific(m, 9)"),
        ("m/labels/x:predict", {"instances": [1]}, 400, "Unrecognized servable version label: x"),
        ("nope/labels/x:predict", {"instances": [1]}, 400, "Unrecognized servable version label: x"),
        ("m:predict", {"signature_name": "no", "instances": [1]}, 400,
         'Serving signature name: "no" not found in signature def'),
        ("m:classify", {"signature_name": "no", "examples": [{}]}, 400, "No signature was found with the name: no"),
        ("m:predict", b"", 400, "JSON Parse error: The document is empty"),
        ("nope:predict", b"{", 400, "JSON Parse error: Missing a name for object member. at offset: 1"),
        ("m:predict?x=1", {"instances": [1]}, 400, "Malformed request: POST /v1/models/m:predict?x=1"),
        ("m:PREDICT", {"instances": [1]}, 400, "Malformed request: POST /v1/models/m:PREDICT"),
        ("m", {}, 400, "Malformed request: POST /v1/models/m"),
    ],
)  # fmt: skip
def test_errors(server: Any, path: str, body: Any, status: int, error: str) -> None:
    answer = server.post(path, body)
    assert (answer.status_code, answer.json()) == (status, {"error": error})


def test_a_failing_op_gives_its_own_message(server: Any) -> None:
    answer = server.post("m:predict", {"signature_name": "decode", "instances": ["no image"]})
    assert answer.status_code == 400
    assert "Unknown image file format" in answer.json()["error"]


def test_bad_requests_do_not_harm_good_ones(server: Any) -> None:
    good = {"signature_name": "decode", "instances": [{"b64": base64.b64encode(png(5)).decode()}]}
    bad = [
        {"signature_name": "decode", "instances": ["not an image"]},
        {"signature_name": "decode", "instances": [{"b64": base64.b64encode(png()[:40]).decode()}]},
        {"signature_name": "decode", "instances": [1]},
        {"instances": [[1, 2], [3]]},
        b"{",
    ]
    with ThreadPoolExecutor(8) as pool:
        jobs = [(body, pool.submit(server.post, "m:predict", body)) for body in [good, *bad] * 10]
        for body, job in jobs:
            answer = job.result()
            if body is good:
                assert (answer.status_code, answer.json()) == (200, {"predictions": [5]})
            else:
                assert answer.status_code == 400, answer.text
                assert "Traceback" not in answer.text


def test_classify_and_regress(server: Any) -> None:
    answer = server.post("m:classify", {"signature_name": "classify", "examples": [{"x": 0.5}, {}]})
    assert answer.json() == {"results": [[["cat", 0.5], ["dog", 0.5]], [["cat", 0.25], ["dog", 0.75]]]}
    answer = server.post(
        "m:regress", {"signature_name": "regress", "context": {"x": 0.5}, "examples": [{}, {"x": 2.0}]}
    )
    assert answer.json() == {"results": [5.0, 20.0]}
    answer = server.post("m:regress", {"signature_name": "regress", "examples": [{"x": 2}]})
    assert answer.status_code == 400
    assert "Data type: int64 but expected type: float" in answer.json()["error"]
    answer = server.post("m:classify", {"signature_name": "classify", "examples": [{"x": [1.0, "a"]}]})
    assert answer.json() == {"error": "Unexpected element type in feature: x expecting type: float"}


def test_status_and_metadata(server: Any) -> None:
    expected = [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]
    for path in ("/v1/models/m", "/v1/models/m/versions/1", "/V1/MODELS/m", "/v1/models/m/labels/none"):
        assert server.get(path).json() == {"model_version_status": expected}
    metadata = server.get("/v1/models/m/metadata").json()
    assert metadata["model_spec"] == {"name": "m", "signature_name": "", "version": "1"}
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert "__saved_model_init_op" in signatures
    assert signatures["two"]["inputs"]["a"]["dtype"] == "DT_FLOAT"
    assert signatures["two"]["inputs"]["a"]["tensor_shape"]["dim"] == [{"size": "-1", "name": ""}]


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v1/models/nope", 404, "Could not find any versions of model nope"),
        ("/v1/models/m/versions/9", 404, "Could not find version 9 of model m"),
        ("/v1/models", 400, "Missing model name in request."),
        ("/v1/models/m?x=1", 404, "Could not find any versions of model m?x=1"),
        ("/v1/models/m/metadata/x", 400, "Malformed request: GET /v1/models/m/metadata/x"),
        ("/v1/models/m/labels/x/metadata", 400, "Unrecognized servable version label: x"),
        ("/v1/models/nope/metadata", 404, "Servable not found for request: Latest(nope)"),
    ],
)
def test_get_errors(server: Any, path: str, status: int, error: str) -> None:
    answer = server.get(path)
    assert (answer.status_code, answer.json()) == (status, {"error": error})


def test_odd_requests(server: Any) -> None:
    answer = server.get("/v1/models/m/versions/99999999999999999999")
    assert (answer.status_code, answer.content) == (400, b"")
    answer = server.get("/elsewhere")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "text/html")
    answer = server.session.put(server.base + "/v1/models/m", timeout=30)
    assert (answer.status_code, answer.json()) == (400, {"error": "Malformed request: PUT /v1/models/m"})
    assert server.session.options(server.base + "/v1/models/m", timeout=30).status_code == 400
    answer = server.session.options(server.base + "/v1/x", headers={"Origin": "http://a"}, timeout=30)
    assert (answer.status_code, answer.content) == (200, b"")


def test_gzip_bodies(server: Any) -> None:
    packed = gzip.compress(b'{"instances": [1]}')
    answer = server.post("m:predict", packed, headers={"Content-Encoding": "gzip"})
    assert answer.json() == {"predictions": [2.5]}
    for broken in (packed[:-4], b"no gzip", gzip.compress(bytes(101 * 2**20), 1)):
        answer = server.post("m:predict", broken, headers={"Content-Encoding": "gzip"})
        assert (answer.status_code, answer.json()) == (400, {"error": "JSON Parse error: The document is empty"})


def test_keep_alive_and_chunked_bodies(server: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    for _ in range(3):
        connection.request("POST", "/v1/models/m:predict", iter([b'{"inst', b'ances": [1]}']), encode_chunked=True)
        answer = connection.getresponse()
        assert json.loads(answer.read()) == {"predictions": [2.5]}
        assert not answer.will_close
    connection.close()


def test_expect_100_continue(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=30) as raw:
        head = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 18\r\n\r\n"
        raw.sendall(head)
        assert raw.recv(1000).startswith(b"HTTP/1.1 100")
        raw.sendall(b'{"instances": [1]}')
        assert raw.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_large_body(server: Any) -> None:
    values = [0.5] * 400_000
    answer = server.post("m:predict", {"instances": [values, values]})
    assert answer.json() == {"predictions": [[2.25] * 400_000] * 2}


def test_metrics(server: Any) -> None:
    server.post("m:predict", {"instances": [1]})
    server.post("nope:predict", {"instances": [1]})
    answer = server.get("/monitoring/prometheus/metrics")
    assert answer.headers["Content-Type"] == "text/plain"
    lines = answer.text.splitlines()
    assert "# TYPE :tensorflow:serving:request_count counter" in lines
    assert any(line.startswith(':tensorflow:serving:request_count{model_name="m",status="OK"} ') for line in lines)
    assert any(
        line.startswith(':tensorflow:serving:request_count{model_name="nope",status="NOT_FOUND"}') for line in lines
    )
    latency = ':tensorflow:serving:request_latency_bucket{model_name="m",API="predict",entrypoint="REST",le='
    counts = [int(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(latency)]
    assert len(counts) == 34
    assert counts == sorted(counts)
    assert any(line.startswith(latency + '"+Inf"') for line in lines)
    assert server.get("/monitoring/prometheus/metrics?x=1").status_code == 400
