"""HTTP with a pooled session, timeouts, retries, and errors of the client's own tree."""

from __future__ import annotations

import json
import random
import time
from http.cookiejar import DefaultCookiePolicy
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth

from serving.client.errors import (
    BadResponse,
    DeadlineExceeded,
    NotFound,
    ServerUnavailable,
    ServingError,
    Unauthenticated,
    clip,
    from_http_status,
)

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
MAX_WAIT_S = 5.0
_FIRST_WAIT_S = 0.1
_POOL_SIZE = 32
_CONNECT_TIMEOUT_S = 3.05


class HttpTransport:
    """One server, asked over HTTP. Threads may share it.

    Args:
        url: http(s)://host[:port][/prefix], without user and password.
        user, password: for basic authentication; both or none.
        timeout_s: longest wait for an answer, seconds, each attempt.
        retries: how many more attempts after a lost connection or a status of 429, 502, 503, 504. Predictions change
            nothing on the server, so a POST is repeated like a GET.
        verify: False accepts any certificate; a path names the private CA's certificates.
    """

    def __init__(
        self,
        url: str,
        user: str | None,
        password: str | None,
        *,
        timeout_s: float,
        retries: int,
        verify: bool | str,
    ) -> None:
        self.url = checked_url(url)
        self._has_credentials = user is not None
        self._timeout_s = timeout_s
        self._timeout = (min(_CONNECT_TIMEOUT_S, timeout_s), timeout_s)
        self._retries = retries
        self._session = session = requests.Session()
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=_POOL_SIZE)
        session.mount(self.url, adapter)
        session.auth = basic_auth(user, password)
        session.verify = checked_verify(verify)
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        session.trust_env = not is_loopback(self.url)  # no proxy stands before one's own machine

    def close(self) -> None:
        """Close the pooled connections."""
        self._session.close()

    def call(self, method: str, path: str, body: object = None) -> tuple[dict[str, object], float]:
        """Send a request, again if need be.

        Args:
            method: GET or POST.
            path: from `/v1/...`, already quoted.
            body: what to send as JSON.

        Returns:
            The JSON object of the answer and the milliseconds of the attempt that brought it.
        """
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        attempt = 0
        while True:
            began = time.perf_counter()
            try:
                response = self._send(method, path, data)
            except ServerUnavailable:
                if attempt >= self._retries:
                    raise
                wait_s = backoff_s(attempt)
            else:
                if response.status_code not in RETRIED_STATUSES or attempt >= self._retries:
                    answer = self._read(response)
                    return answer, (time.perf_counter() - began) * 1000
                wait_s = _retry_after_s(response) or backoff_s(attempt)
            time.sleep(wait_s)
            attempt += 1

    def _send(self, method: str, path: str, data: bytes | None) -> requests.Response:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        try:
            return self._session.request(
                method, self.url + path, data=data, headers=headers, timeout=self._timeout, allow_redirects=False
            )
        except requests.exceptions.ReadTimeout:
            raise DeadlineExceeded(f"{self.url} did not answer within {self._timeout_s:g} s") from None
        except requests.exceptions.SSLError as error:
            raise ServerUnavailable(f"{self.url}: no trusted TLS connection ({_reason(error)})") from None
        except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            raise ServerUnavailable(f"cannot reach {self.url} ({_reason(error)})") from None
        except requests.exceptions.RequestException as error:
            raise ServingError(f"{self.url}: {type(error).__name__}") from None

    def _read(self, response: requests.Response) -> dict[str, object]:
        try:
            answer = json.loads(response.content)
        except ValueError:
            answer = None
        if response.status_code == 200:
            if isinstance(answer, dict):
                return answer
            raise BadResponse(f"{self.url} answered 200 with {_kind(response)} instead of a JSON object; wrong URL?")
        message = answer.get("error") if isinstance(answer, dict) else None
        raise self._error(response, message if isinstance(message, str) else None)

    def _error(self, response: requests.Response, message: str | None) -> ServingError:
        status = response.status_code
        error = from_http_status(status, message or f"{self.url} answered {status} with {_kind(response)}")
        if isinstance(error, NotFound) and message is None:
            error = BadResponse(f"{self.url} answered 404 with {_kind(response)}: no model server at this URL?")
            error.status = status
        if isinstance(error, Unauthenticated):
            what = "user or password is wrong" if self._has_credentials else "a user and a password are needed"
            error = Unauthenticated(f"{self.url}: {what}")
            error.status = status
        return error


def checked_url(url: str) -> str:
    """The URL without a trailing slash.

    Raises:
        ValueError: it is not http(s)://host[:port][/prefix]; the text never repeats a password.
    """
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("url: user and password do not belong in the URL; give them as user= and password=")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url: expected http://host:port or https://host:port, got {url!r}")
    if parts.query or parts.fragment:
        raise ValueError(f"url: expected no query and no fragment, got {url!r}")
    return url.rstrip("/")


def checked_credentials(user: str | None, password: str | None) -> tuple[str, str] | None:
    """Both or none.

    Raises:
        ValueError: one is missing, or the user cannot be sent.
    """
    if user is None and password is None:
        return None
    if user is None or password is None:
        raise ValueError("give user and password together, or neither")
    if ":" in user:
        raise ValueError("user: basic authentication allows no colon in the name")
    return user, password


def checked_verify(verify: bool | str) -> bool | str:
    """The setting itself.

    Raises:
        ValueError: it names a file that is not there.
    """
    if isinstance(verify, str) and not Path(verify).exists():
        raise ValueError(f"verify: {verify}: no such file; expected the certificates of a CA (PEM)")
    return verify


def basic_auth(user: str | None, password: str | None) -> AuthBase:
    """Basic authentication as UTF-8, or none at all (not even from ~/.netrc)."""
    credentials = checked_credentials(user, password)
    if credentials is None:
        return _NoAuth()
    return HTTPBasicAuth(*(part.encode() for part in credentials))


def backoff_s(attempt: int) -> float:
    """Seconds to wait before the next attempt: doubling, with jitter so that clients do not come back together."""
    longest: float = min(MAX_WAIT_S, _FIRST_WAIT_S * 2.0**attempt)
    return longest * random.uniform(0.5, 1.0)


class _NoAuth(AuthBase):
    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def _retry_after_s(response: requests.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return min(float(value), MAX_WAIT_S) if value.isdigit() else None


def is_loopback(url: str) -> bool:
    """Whether the URL means this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _kind(response: requests.Response) -> str:
    if not response.content:
        return "an empty body"
    if response.is_redirect:
        return "a redirect"
    return response.headers.get("Content-Type", "an unnamed type").split(";")[0]


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words: requests wraps urllib3, which wraps the socket's own error."""
    text = str(error).lower()
    for needle, words in (
        ("refused", "connection refused"),
        ("name or service not known", "unknown host"),
        ("failed to resolve", "unknown host"),
        ("timed out", "connection timed out"),
        ("certificate verify failed", "certificate not trusted; verify= takes a private CA's file"),
        ("wrong version number", "the server does not speak TLS there"),
        ("reset by peer", "connection reset"),
        ("remote end closed", "connection closed without an answer"),
        ("broken", "connection lost in the middle of the answer"),
        ("incompleteread", "connection lost in the middle of the answer"),
    ):
        if needle in text:
            return words
    return clip(type(error).__name__)
