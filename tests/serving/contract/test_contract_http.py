"""HTTP as libevent and TensorFlow Serving's dispatcher speak it."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

BODY = b'{"instances": [1]}'
ANSWER = {"predictions": [2.5]}
PREDICT = "/v1/models/rules:predict"


@pytest.fixture
def connection(target: Any) -> Iterator[http.client.HTTPConnection]:
    address = urlsplit(target.url)
    made = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    yield made
    made.close()


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, bytes, http.client.HTTPResponse]:
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read(), answer


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/rules:predict?x=1"),
        ("POST", "/v1/models/rules:PREDICT"),
        ("POST", "/v1/models/rules:run"),
        ("POST", "/v1/models/rules"),
        ("POST", "/v1/models/rules/versions/x:predict"),
        ("POST", "/v1/models/rules/versions/-1:predict"),
        ("POST", "/v1/models/rules/versions/1/labels/stable:predict"),
        ("POST", "/v1/models/a/b:predict"),
        ("POST", "/v1/models/:predict"),
        ("POST", "/v1/x"),
        ("GET", "/v1/x"),
        ("GET", PREDICT),
        ("GET", "/v1/models/rules/"),
        ("GET", "/v1/models/rules/metadata/x"),
        ("GET", "/v1/models/rules/versions/"),
        ("PUT", "/v1/models/rules"),
        ("DELETE", "/v1/models/rules"),
        ("PATCH", PREDICT),
    ],
)
def test_malformed_requests(connection: Any, method: str, path: str) -> None:
    status, body, answer = ask(connection, method, path)
    assert (status, json.loads(body)) == (400, {"error": f"Malformed request: {method} {path}"})
    assert answer.headers["Content-Type"] == "application/json"


def test_head_is_a_malformed_request_without_a_body(connection: Any) -> None:
    status, body, _ = ask(connection, "HEAD", "/v1/models/rules")
    assert (status, body) == (400, b"")


@pytest.mark.parametrize("path", ["/", "/elsewhere", "/v1", "/v2/models/rules", "/monitoring/prometheus"])
def test_what_is_not_under_v1_is_libevents_page(connection: Any, path: str) -> None:
    status, body, answer = ask(connection, "GET", path)
    assert (status, answer.headers["Content-Type"]) == (404, "text/html")
    assert body == (b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n")
    assert answer.will_close


@pytest.mark.parametrize("path", ["/v1/models/a|b", "/v1/models/a%zz", "/v1/models/<a>"])
def test_a_path_that_is_no_uri(connection: Any, path: str) -> None:
    status, body, answer = ask(connection, "GET", path)
    assert (status, answer.headers["Content-Type"]) == (400, "text/html")
    assert b"<TITLE>400 Bad Request</TITLE>" in body


@pytest.mark.parametrize(("method", "path"), [("POST", "rules/versions/{}:predict"), ("GET", "rules/versions/{}")])
def test_a_version_that_is_no_int64(connection: Any, method: str, path: str) -> None:
    for version in (2**63, 10**30):
        status, body, answer = ask(connection, method, "/v1/models/" + path.format(version), BODY)
        assert (status, body, answer.headers["Content-Type"]) == (400, b"", "application/json")


def test_paths_take_any_case_but_what_they_do_does_not(connection: Any) -> None:
    status, body, _ = ask(connection, "POST", "/V1/Models/rules:predict", BODY)
    assert (status, json.loads(body)) == (200, ANSWER)
    assert ask(connection, "GET", "/V1/MODELS/rules/VERSIONS/1")[0] == 200
    status, body, _ = ask(connection, "GET", "/v1/models/rules/METADATA")
    assert list(json.loads(body)) == ["model_version_status"]  # compared in lower case, else it is the status


def test_preflights(connection: Any) -> None:
    for origin, wanted in (("http://a", 200), ("https://a", 200), ("a", 400), (None, 400)):
        for path in (PREDICT, "/v1/x"):
            status, body, _ = ask(connection, "OPTIONS", path, **({"Origin": origin} if origin else {}))
            assert (status, body) == (wanted, b"")
    assert ask(connection, "OPTIONS", "/x", Origin="http://a")[0] == 404


def test_there_are_no_cors_headers_without_their_flag(connection: Any) -> None:
    _, _, answer = ask(connection, "POST", PREDICT, BODY, Origin="http://a")
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert answer.headers["Date"]


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
def test_the_content_type_is_not_looked_at(connection: Any, kind: str) -> None:
    status, body, _ = ask(connection, "POST", PREDICT, BODY, Content_Type=kind)
    assert (status, json.loads(body)) == (200, ANSWER)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip, deflate"])
def test_gzip_is_unpacked(connection: Any, encoding: str) -> None:
    status, body, answer = ask(
        connection, "POST", PREDICT, gzip.compress(BODY), Content_Encoding=encoding, Accept_Encoding="gzip"
    )
    assert (status, json.loads(body)) == (200, ANSWER)
    assert "Content-Encoding" not in answer.headers


def test_true_is_no_number_in_gzip_either(connection: Any) -> None:
    status, body, _ = ask(connection, "POST", PREDICT, gzip.compress(b'{"instances": [true]}'), Content_Encoding="gzip")
    assert status == 400
    assert "is not of expected type: float" in json.loads(body)["error"]


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(BODY)[:-4], b"no gzip", b"", gzip.compress(bytes(101 * 2**20), 1)],
    ids=["cut", "no gzip", "empty", "101 MiB"],
)
def test_a_bad_gzip_body_counts_as_empty(connection: Any, packed: bytes) -> None:
    status, body, _ = ask(connection, "POST", PREDICT, packed, Content_Encoding="gzip")
    assert (status, json.loads(body)) == (400, {"error": "JSON Parse error: The document is empty"})


def test_another_encoding_is_not_unpacked(connection: Any) -> None:
    status, body, _ = ask(connection, "POST", PREDICT, BODY, Content_Encoding="deflate")
    assert (status, json.loads(body)) == (200, ANSWER)


def test_keep_alive_and_chunked_bodies(connection: Any) -> None:
    for _ in range(3):
        connection.request("POST", PREDICT, iter([BODY[:5], BODY[5:]]), encode_chunked=True)
        answer = connection.getresponse()
        assert json.loads(answer.read()) == ANSWER
        assert not answer.will_close
        assert ask(connection, "POST", "/v1/models/nope:predict", BODY)[0] == 404


def test_connection_close_is_kept(connection: Any) -> None:
    _, _, answer = ask(connection, "POST", PREDICT, BODY, Connection="close")
    assert answer.will_close


def test_http_1_0_and_expect_100_continue(target: Any) -> None:
    address = urlsplit(target.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as raw:
        raw.sendall(b"POST %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (PREDICT.encode(), len(BODY), BODY))
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.split(b" ")[1] == b"200"
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == ANSWER
    with socket.create_connection((address.hostname, address.port), timeout=60) as raw:
        head = b"POST %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        raw.sendall(head % (PREDICT.encode(), len(BODY)))
        assert raw.recv(1000).startswith(b"HTTP/1.1 100")
        raw.sendall(BODY)
        assert raw.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_large_body(target: Any) -> None:
    values = [0.5] * 400_000
    assert target.post("rules:predict", {"instances": [values, values]}).json() == {
        "predictions": [[2.25] * 400_000] * 2
    }
