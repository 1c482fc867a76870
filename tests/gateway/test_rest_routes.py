"""REST and the page through a real nginx: who gets in, which routes exist, what the backends see."""

from __future__ import annotations

import http.client
import json
import socket
import time

import pytest
import requests

MODEL = "/v1/models/fashion_mnist"
READS = [MODEL, f"{MODEL}/versions/1", f"{MODEL}/labels/stable", f"{MODEL}/metadata", f"{MODEL}/versions/1/metadata"]
PREDICTS = [f"{MODEL}:predict", f"{MODEL}/versions/1:predict", f"{MODEL}/labels/a-b:classify", f"{MODEL}:regress"]
MISSING = [
    "/v1", "/v1/", "/v1/models", "/v1/models/", f"{MODEL}/versions/x", f"{MODEL}:reload", f"{MODEL}/versions/1/x",
    "/v1/config", "/v1/models/a/b", "/v1/models/../../monitoring/prometheus/metrics", "/monitoring",
    "/monitoring/prometheus/metrics", "//monitoring/prometheus/metrics", "/v1/%2e%2e/monitoring/prometheus/metrics",
]  # fmt: skip
PAGES = ["/", "/static/js/index.js", "/_stcore/health", "/_stcore/upload_file/a/b"]
WRONG = [None, ("vitrine", "wrong"), ("nobody", "aLongRandomPassword4Tests000"), ("vitrine", ""), ("", "")]


def call(gateway, method, path, **options):
    """Send a path as it stands: requests would tidy `..` and `%2e` away."""
    prepared = requests.Request(method, gateway.url, **options).prepare()
    prepared.url = gateway.url + path
    with requests.Session() as session:
        return session.send(prepared, timeout=30)


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reads_reach_the_model_server_as_get(gateway, rest, method, path):
    answer = call(gateway, method, path, auth=gateway.auth)
    assert answer.status_code == 200
    assert answer.headers["X-Backend"] == "yes"
    assert bool(answer.content) == (method == "GET")
    assert rest.last()[0] == f"GET {path}"


@pytest.mark.parametrize("path", PREDICTS)
def test_predictions_reach_the_model_server(gateway, rest, path):
    answer = call(gateway, "POST", path, auth=gateway.auth, data=b"x" * 9_000_000)
    assert answer.status_code == 200
    assert answer.json()["received"] == 9_000_000
    assert rest.last()[0] == f"POST {path}"


@pytest.mark.parametrize("path", PAGES)
def test_pages_reach_streamlit(gateway, page, path):
    assert call(gateway, "GET", path, auth=gateway.auth).headers["X-Backend"] == "yes"
    assert page.last()[0] == f"GET {path}"


@pytest.mark.parametrize("wrong", WRONG, ids=str)
@pytest.mark.parametrize(("method", "path"), [
    ("GET", MODEL), ("GET", f"{MODEL}/metadata"), ("POST", f"{MODEL}:predict"), ("DELETE", MODEL), ("GET", "/v1/none"),
    ("GET", "/monitoring/prometheus/metrics"), *(("GET", path) for path in PAGES), ("GET", "/none"),
])  # fmt: skip
def test_nothing_without_the_right_password(gateway, rest, page, method, path, wrong):
    before = len(rest.seen), len(page.seen)
    answer = call(gateway, method, path, auth=wrong)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="Vitrine"'
    assert "Set-Cookie" not in answer.headers
    assert (len(rest.seen), len(page.seen)) == before
    if path.startswith(("/v1", "/monitoring")):
        assert answer.json() == {"error": "Wrong or missing user name or password."}
        assert answer.headers["Content-Type"] == "application/json"
    else:
        assert "log in" in answer.text


@pytest.mark.parametrize("path", MISSING)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_routes_do_not_exist(gateway, rest, page, method, path):
    before = len(rest.seen), len(page.seen)
    answer = call(gateway, method, path, auth=gateway.auth)
    assert answer.status_code == 404
    assert answer.json()["error"].startswith("No such route")
    assert (len(rest.seen), len(page.seen)) == before


@pytest.mark.parametrize(("method", "path", "allowed"), [
    ("POST", MODEL, "GET, HEAD"), ("DELETE", MODEL, "GET, HEAD"), ("PUT", f"{MODEL}/metadata", "GET, HEAD"),
    ("OPTIONS", MODEL, "GET, HEAD"), ("GET", f"{MODEL}:predict", "POST"), ("PUT", f"{MODEL}:predict", "POST"),
    ("POST", "/healthz", "GET, HEAD"),
])  # fmt: skip
def test_wrong_method(gateway, rest, method, path, allowed):
    before = len(rest.seen)
    answer = call(gateway, method, path, auth=gateway.auth)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == allowed
    assert method in answer.json()["error"]
    assert len(rest.seen) == before


def test_healthz_is_open_and_says_alive(gateway, lonely):
    for running in (gateway, lonely):
        answer = requests.get(f"{running.url}/healthz", timeout=10)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    # An unchecked password on the open route must not earn the websocket's cookie.
    assert "Set-Cookie" not in requests.get(f"{gateway.url}/healthz", auth=("x", "y"), timeout=10).headers


@pytest.mark.parametrize(("method", "path"), [("GET", MODEL), ("POST", f"{MODEL}:predict"), ("GET", "/")])
def test_backends_never_see_password_or_cookie(gateway, rest, page, method, path):
    cookies = {"Cookie": "_streamlit_xsrf=keep; vitrine_stream=1.x; other=1"}
    assert call(gateway, method, path, auth=gateway.auth, headers=cookies).status_code == 200
    headers = (page if path == "/" else rest).last()[1]
    assert "authorization" not in headers
    assert headers["cookie"] == "_streamlit_xsrf=keep; other=1"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["host"] == f"127.0.0.1:{gateway.port}"
    assert gateway.password not in str(headers)


@pytest.mark.parametrize("path", [f"{MODEL}:predict", "/_stcore/upload_file/a/b"])
@pytest.mark.parametrize("chunked", [False, True])
def test_too_large_a_body_is_413(gateway, rest, page, path, chunked):
    before = len(page.seen) + len(rest.seen)
    body = b"x" * (10 * 1024 * 1024 + 1)
    answer = call(gateway, "POST", path, auth=gateway.auth, data=iter([body]) if chunked else body)
    assert answer.status_code == 413
    assert "larger than 10 MB" in answer.text
    assert len(page.seen) + len(rest.seen) == before


def test_the_model_servers_own_errors_pass_through(gateway):
    answer = requests.get(f"{gateway.url}/v1/models/missing", auth=gateway.auth, timeout=10)
    assert (answer.status_code, answer.json()) == (404, {"error": "Servable not found"})


def test_backend_away(lonely):
    answer = requests.post(f"{lonely.url}{MODEL}:predict", auth=lonely.auth, data="{}", timeout=30)
    assert answer.status_code == 502
    assert "model server cannot be reached" in answer.json()["error"]
    answer = requests.get(f"{lonely.url}/", auth=lonely.auth, timeout=30)
    assert answer.status_code == 502
    assert "Reload in a moment" in answer.text
    assert "Set-Cookie" not in answer.headers


def test_backend_too_slow(gateway):
    answer = requests.post(f"{gateway.url}/v1/models/slow:predict", auth=gateway.auth, data="{}", timeout=30)
    assert answer.status_code == 504
    assert "too long" in answer.json()["error"]


def test_too_many_connections_from_one_address(start_gateway, ports):
    with start_gateway(**ports, GATEWAY_MAX_CONNECTIONS=2) as small:
        held = []
        deadline = time.monotonic() + 60
        answer = None
        while answer is None or answer.status_code != 429:
            assert time.monotonic() < deadline, "the held requests were never counted"
            # A limit counts requests whose header has arrived: these wait for their body. One that came in while
            # another was still being answered may itself have been refused, so each turn holds one more.
            connection = socket.create_connection(("127.0.0.1", small.port))
            connection.sendall(
                b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
                + f"Authorization: {requests.auth._basic_auth_str(*small.auth)}\r\n\r\n".encode()
            )
            held.append(connection)
            answer = requests.get(f"{small.url}{MODEL}", auth=small.auth, timeout=10)
        assert len(held) >= 2
        assert "Too many" in answer.json()["error"]
        for connection in held:
            connection.close()


@pytest.mark.parametrize(("header", "status", "said"), [
    ("Host: a b", 400, "Malformed HTTP request."),
    ("X-Long: " + 40_000 * "x", 431, "The request's headers are too large."),
], ids=["unreadable", "too large"])  # fmt: skip
def test_headers_that_cannot_be_read(gateway, header, status, said):
    for path in (MODEL, "/v1/none", "/monitoring", "/"):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\n{header}\r\n\r\n".encode())
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == status
            if path == "/":
                assert answer.headers["Content-Type"] == "text/html"
            else:
                assert json.loads(answer.read()) == {"error": said}
                assert answer.headers["Content-Type"] == "application/json"


def test_security_headers(gateway):
    for path in ("/", MODEL, "/none"):
        for auth in (gateway.auth, None):
            headers = requests.get(gateway.url + path, auth=auth, timeout=10).headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Frame-Options"] == "SAMEORIGIN"
            assert headers["Referrer-Policy"] == "same-origin"
            assert "frame-ancestors 'self'" in headers["Content-Security-Policy"]
            assert headers["Server"] == "nginx"
