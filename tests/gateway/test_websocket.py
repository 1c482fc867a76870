"""The page's websocket: by password or by the signed cookie, from the same site only; the cookie opens nothing else."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from base64 import urlsafe_b64encode

import pytest
import requests
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

STREAM = "/_stcore/stream"


def token(secret, expires):
    text = f"vitrine websocket until {expires}".encode()
    digest = hmac.new(secret.encode(), text, hashlib.sha256).digest()
    return f"{expires}.{urlsafe_b64encode(digest).decode().rstrip('=')}"


def handshake(gateway, *, path=STREAM, auth=None, cookie=None, origin=None):
    """Return 101 after an echo came back, else the status of the refusal."""
    headers = {}
    if auth:
        headers["Authorization"] = requests.auth._basic_auth_str(*auth)
    if cookie is not None:
        headers["Cookie"] = f"_streamlit_xsrf=keep; vitrine_stream={cookie}"
    try:
        with connect(
            f"ws://127.0.0.1:{gateway.port}{path}", additional_headers=headers, origin=origin,
            subprotocols=["streamlit", "xsrf", "session"], open_timeout=30, proxy=None,
        ) as websocket:  # fmt: skip
            websocket.send("hello")
            assert websocket.recv(timeout=30) == "hello"
            assert websocket.subprotocol == "streamlit"
            return 101
    except InvalidStatus as refusal:
        return refusal.response.status_code


@pytest.fixture
def issued(gateway):
    """The cookie as a page load sets it."""
    header = requests.get(f"{gateway.url}/", auth=gateway.auth, timeout=10).headers["Set-Cookie"]
    return re.match(r"vitrine_stream=([^;]+)", header)[1]


def test_the_cookie_is_private_short_lived_and_for_the_websocket_only(gateway):
    header = requests.get(f"{gateway.url}/", auth=gateway.auth, timeout=10).headers["Set-Cookie"]
    value, *attributes = header.split("; ")
    assert attributes == ["Path=/_stcore/stream", "Max-Age=600", "HttpOnly", "SameSite=Strict"]
    expires = int(value.partition("=")[2].partition(".")[0])
    assert 0 < expires - time.time() <= 600
    assert value == f"vitrine_stream={token(gateway.cookie_secret, expires)}"


@pytest.mark.parametrize("path", ["/", "/static/js/index.js", "/_stcore/health"])
def test_every_authenticated_page_asset_and_health_request_renews_it(gateway, path):
    assert "vitrine_stream=" in requests.get(gateway.url + path, auth=gateway.auth, timeout=10).headers["Set-Cookie"]


def test_rest_sets_no_cookie(gateway):
    answer = requests.get(f"{gateway.url}/v1/models/m", auth=gateway.auth, timeout=10)
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers


def test_password_opens_the_websocket(gateway, page):
    assert handshake(gateway, auth=gateway.auth) == 101
    assert "authorization" not in page.last()[1]


def test_cookie_opens_the_websocket_without_a_password(gateway, page, issued):
    assert handshake(gateway, cookie=issued) == 101
    seen, headers = page.last()
    assert seen == "WEBSOCKET /_stcore/stream"
    assert headers["cookie"] == "_streamlit_xsrf=keep"
    assert "authorization" not in headers


def test_neither_is_refused(gateway, page):
    before = len(page.seen)
    assert handshake(gateway) == 401
    assert handshake(gateway, auth=("vitrine", "wrong")) == 401
    assert len(page.seen) == before


def _bad_tokens(secret):
    now = int(time.time())
    good = token(secret, now + 300)
    flipped = good[:-2] + ("A" if good[-2] != "A" else "B") + good[-1]
    return {
        "empty": "",
        "text": "x",
        "expired": token(secret, now - 1),
        "long ago": token(secret, 1),
        "too far ahead": token(secret, now + 3600),
        "another secret": token("00" * 32, now + 300),
        "no secret": token("", now + 300),
        "undefined secret": token("undefined", now + 300),
        "signature changed": flipped,
        "expiry changed": f"{now + 301}.{good.partition('.')[2]}",
        "signature cut": good[:-1],
        "no signature": f"{now + 300}.",
    }


@pytest.mark.parametrize("kind", _bad_tokens("x"))
def test_bad_cookies_are_refused(gateway, page, kind):
    before = len(page.seen)
    assert handshake(gateway, cookie=_bad_tokens(gateway.cookie_secret)[kind]) == 401
    assert len(page.seen) == before


def test_a_good_cookie_beside_a_bad_one_counts(gateway, issued):
    assert handshake(gateway, cookie=f"x; vitrine_stream={issued}") == 101


@pytest.mark.parametrize("path", ["/", "/v1/models/m", "/_stcore/health", "/_stcore/stream2", "/_stcore/stream/x"])
def test_the_cookie_opens_nothing_else(gateway, page, rest, issued, path):
    before = len(page.seen), len(rest.seen)
    answer = requests.get(gateway.url + path, headers={"Cookie": f"vitrine_stream={issued}"}, timeout=10)
    assert answer.status_code == 401
    assert handshake(gateway, path=path, cookie=issued) == 401
    assert (len(page.seen), len(rest.seen)) == before


def test_same_site_pages_may_connect(gateway, issued):
    assert handshake(gateway, cookie=issued, origin=f"http://127.0.0.1:{gateway.port}") == 101


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1"])
def test_another_sites_page_may_not_even_with_the_password(gateway, page, issued, origin):
    before = len(page.seen)
    assert handshake(gateway, auth=gateway.auth, cookie=issued, origin=origin) == 403
    assert len(page.seen) == before


def test_a_secret_is_made_when_none_is_given(start_gateway, ports):
    with start_gateway(**ports, GATEWAY_COOKIE_SECRET="") as own:
        header = requests.get(f"{own.url}/", auth=own.auth, timeout=10).headers["Set-Cookie"]
        assert handshake(own, cookie=re.match(r"vitrine_stream=([^;]+)", header)[1]) == 101
        soon = int(time.time()) + 300
        for guess in ("", "undefined", own.cookie_secret):
            assert handshake(own, cookie=token(guess, soon)) == 401
