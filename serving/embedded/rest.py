"""The REST face: paths, bodies and status codes of TensorFlow Serving's HTTP API, as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from google.protobuf.json_format import MessageToJson
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from serving.embedded import examples, inference, json_results, json_tensors, messages, metrics, parse_apart
from serving.embedded.errors import Code, ServingError, code_and_message, http_status, invalid_argument, let_go
from serving.embedded.json_writer import error_body
from serving.embedded.versions import VersionManager

log = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

INT64_MAX = 2**63 - 1
GZIP_LIMIT = 100 * 1024 * 1024  # bytes, unpacked
IN_PLACE_LIMIT = 16 * 1024  # bytes; a body up to this is parsed in a fraction of a millisecond
WORKER_LIMIT = 32 * 1024 * 1024  # bytes; while a worker parses a body, nobody else gets on: up to half a second
_FLAGS = re.ASCII | re.IGNORECASE | re.DOTALL
_API = re.compile(r"/v1/.*", _FLAGS)
_PREDICTION = re.compile(
    r"/v1/models/([^/:]+)(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?:(classify|regress|predict)", _FLAGS
)
_STATUS = re.compile(r"/v1/models(?:/([^/:]+))?(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?(?:/(metadata))?", _FLAGS)
_PREDICTIONS = ("predict", "classify", "regress")
_METHODS = {"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"}
_URI = re.compile(r"(?:[\w.~!$&'()*+,;=:@/?-]|%[0-9a-f]{2})*", _FLAGS)  # what libevent takes for a path and a query
_JSON = (b"Content-Type", b"application/json")
_HTML = (b"Content-Type", b"text/html; charset=ISO-8859-1")  # libevent's default, where nothing else is said
_CORS_HEADERS = [
    (b"Access-Control-Allow-Origin", b"*"),
    (b"Access-Control-Allow-Methods", b"POST, GET"),
    (b"Access-Control-Allow-Headers", b"Content-Type"),
]


@dataclass(frozen=True)
class RestSettings:
    """What the flags and the monitoring file say about REST."""

    timeout_ms: int | None = 30_000
    cors: bool = False
    metrics_path: str = ""  # "": no metrics page


@dataclass(frozen=True)
class _Target:
    """What a path under /v1/ names."""

    model: str = ""
    version: int | None = None
    label: str | None = None
    method: str = ""  # predict, classify, regress, metadata, status; "" for a path that is none


class _VersionTooBig(Exception):  # noqa: N818  # ends as a 400 with an empty body, see RestFace._answer_api
    """A version in the path that is no int64."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model


class RestFace:
    """The ASGI application."""

    def __init__(self, manager: VersionManager, executor: Executor, settings: RestSettings) -> None:
        self._manager = manager
        self._executor = executor
        self._settings = settings
        self._one_apart = asyncio.Lock()  # a large body takes many times its size in memory while it is parsed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope["raw_path"].decode("latin-1")
        if scope["query_string"]:
            path += "?" + scope["query_string"].decode("latin-1")  # part of the path, for TensorFlow Serving
        body = await _read_body(receive)
        if body is None:
            return  # the client went away
        metrics_path = self._settings.metrics_path
        if scope["method"] not in _METHODS:
            await _send_error_page(send, 501, "Not Implemented")
        elif not _URI.fullmatch(path):
            await _send_error_page(send, 400, "Bad Request")
        elif metrics_path and path.partition("?")[0] == metrics_path:
            status, answer = self._answer_metrics(path)
            await _send(send, status, answer, [(b"Content-Type", b"text/plain")])
        elif _API.fullmatch(path):
            options = scope["method"] == "OPTIONS"
            status, answer = _answer_preflight(scope) if options else await self._answer_api(scope, path, body)
            headers = [_HTML if options else _JSON, *(_CORS_HEADERS if self._settings.cors else [])]
            await _send(send, status, answer, headers)
        else:
            await _send_error_page(send, 404, "Not Found")

    def _answer_metrics(self, path: str) -> tuple[int, bytes]:
        if path != self._settings.metrics_path:
            return 400, f"Unexpected path: {path}. Should be {self._settings.metrics_path}".encode("latin-1")
        return 200, metrics.page()

    async def _answer_api(self, scope: Scope, path: str, body: bytes) -> tuple[int, bytes]:
        target, start = _Target(), time.perf_counter()
        try:
            target = _parse_path(scope["method"], path)
            answer = await self._process(scope, path, target, body)
        except _VersionTooBig as error:
            metrics.count_request(error.model, Code.INVALID_ARGUMENT.name)
            return 400, b""
        except Exception as error:
            code, message = code_and_message(error)
            if code == Code.INTERNAL:
                log.error("%s %s failed", scope["method"], path, exc_info=error)
            metrics.count_request(target.model, code.name)
            let_go(error)
            return http_status(code), error_body(message)
        metrics.count_request(target.model, Code.OK.name)
        # The real server names the method of predictions only, but measures every call that went well.
        method = target.method if target.method in _PREDICTIONS else ""
        metrics.request_latency(target.model, method, "REST", time.perf_counter() - start)
        return 200, answer

    async def _process(self, scope: Scope, path: str, target: _Target, body: bytes) -> bytes:
        if target.method in _PREDICTIONS:
            if b"gzip" in _header(scope, b"content-encoding"):
                body = await self._work(_unpack, body)
            if target.method == "predict":
                return await self._predict(target, body)
            return await self._work(self._run_examples, target, body)
        if target.method == "metadata":
            return self._metadata(target)
        if target.method == "status":
            return self._status(target)
        raise invalid_argument(f"Malformed request: {scope['method']} {path}")

    async def _work(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    async def _predict(self, target: _Target, body: bytes) -> bytes:
        with contextlib.ExitStack() as held:
            try:
                model = held.enter_context(self._manager.use(target.model, target.version, target.label))
            except ServingError:
                await self._read(body, {})  # what is wrong with the body is said first
                raise
            parsed = await self._read(body, model.input_types)
            if parsed.inputs is None:
                name = parsed.signature or inference.DEFAULT_SIGNATURE
                raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
            return await inference.predict_async(
                model,
                parsed.signature,
                parsed.inputs,
                (),
                self._settings.timeout_ms,
                lambda outputs: json_results.write_predictions(outputs, parsed.row_format),
            )

    async def _read(self, body: bytes, wanted: Mapping[str, Mapping[str, int]]) -> json_tensors.PredictBody:
        """Parse a body on the event loop, which costs no change of threads, in a worker thread, or apart."""
        if len(body) <= IN_PLACE_LIMIT:
            return json_tensors.read_predict_body(body, wanted)
        if len(body) <= WORKER_LIMIT:
            return await self._work(json_tensors.read_predict_body, body, wanted)
        async with self._one_apart:
            return await parse_apart.read_predict_body(body, wanted)

    def _run_examples(self, target: _Target, body: bytes) -> bytes:
        """Do one :classify or :regress."""
        document = json_tensors.parse_object(body)
        signature = json_tensors.signature_name(document)
        listed = examples.from_json(document)
        timeout_ms = self._settings.timeout_ms
        with self._manager.use(target.model, target.version, target.label) as model:
            if target.method == "regress":
                return json_results.write_regressions(inference.regress(model, signature, listed, timeout_ms))
            found = inference.classify(model, signature, listed, timeout_ms)
        return json_results.write_classifications(found.labels, found.scores)

    def _status(self, target: _Target) -> bytes:
        if not target.model:
            raise invalid_argument("Missing model name in request.")
        response = get_model_status_pb2.GetModelStatusResponse()
        messages.fill_status(response, self._manager.status(target.model, target.version))
        return (_json(response) + "\n").encode()

    def _metadata(self, target: _Target) -> bytes:
        if not target.model:
            raise invalid_argument("Missing model name in request.")
        with self._manager.use(target.model, target.version, target.label) as model:
            spec = messages.model_spec(model.name, model.version)
            signatures = get_model_metadata_pb2.SignatureDefMap()
            messages.fill_signatures(signatures, model)
        return (f'{{\n"model_spec":{_json(spec)},\n"metadata": {{"signature_def": {_json(signatures)}}}\n}}\n').encode()


def _parse_path(method: str, path: str) -> _Target:
    if method not in ("GET", "POST"):
        return _Target()
    match = (_PREDICTION if method == "POST" else _STATUS).fullmatch(path)
    if not match:
        return _Target()
    model, version, label, action = match.groups()
    if version is not None and int(version.lstrip("0")[:20] or "0") > INT64_MAX:
        raise _VersionTooBig(_percent_decode(model or ""))
    if method == "GET":
        action = "metadata" if action == "metadata" else "status"
    return _Target(
        model=_percent_decode(model or ""),
        version=None if version is None else int(version),
        label=None if label is None else _percent_decode(label),
        # The pattern takes any case, what is done with the word only lower case; as in the real server.
        method=action if action in ("predict", "classify", "regress", "metadata", "status") else "",
    )


def _percent_decode(text: str) -> str:
    return unquote(text, errors="surrogateescape")


def _answer_preflight(scope: Scope) -> tuple[int, bytes]:
    """Answer OPTIONS, which has no body even where it fails."""
    code = Code.OK if re.search(rb"https?://", _header(scope, b"origin")) else Code.FAILED_PRECONDITION
    metrics.count_request("", code.name)
    return http_status(code), b""


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


def _unpack(body: bytes) -> bytes:
    """Unpack a gzip body; a bad one counts as empty, and so does one of more than 100 MiB."""
    with contextlib.suppress(zlib.error):
        unpacker = zlib.decompressobj(wbits=31)
        data = unpacker.decompress(body, GZIP_LIMIT + 1)
        if unpacker.eof and len(data) <= GZIP_LIMIT:
            return data
    return b""


def _json(message: Any) -> str:
    return MessageToJson(message, indent=1, always_print_fields_with_no_presence=True, preserving_proto_field_name=True)


async def _read_body(receive: Receive) -> bytes | None:
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _send(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers = [*headers, (b"Content-Length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_error_page(send: Send, status: int, reason: str) -> None:
    """Answer what never gets to TensorFlow Serving with libevent's page, after which it closes the connection."""
    page = (
        f"<HTML><HEAD>\n<TITLE>{status} {reason}</TITLE>\n</HEAD><BODY>\n<H1>{reason}</H1>\n</BODY></HTML>\n"
    ).encode()
    await _send(send, status, page, [(b"Content-Type", b"text/html"), (b"Connection", b"close")])
