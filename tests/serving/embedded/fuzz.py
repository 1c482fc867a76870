"""Sends bent requests to an embedded server and checks every answer; good requests run beside them.

    PYTHONPATH=. python tests/serving/embedded/fuzz.py --count 20000 --seed 1
    PYTHONPATH=. python tests/serving/embedded/fuzz.py --replay runs/fuzz/1-4711.json

Ends with 1 where something was wrong; each failing request is then in a file of its own, with the seed, to be replayed.
"""

# ruff: noqa: T201  # a command line

from __future__ import annotations

import argparse
import http.client
import json
import re
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fuzz_requests
import grpc
from fuzz_requests import Request
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

DEADLINE_S = 60.0  # an answer that takes longer is a hang
WARM_UP_SHARE = 4  # what the server uses is first measured after a quarter of the requests
_LIMITS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
_ANSWER_KEYS = ({"predictions"}, {"outputs"}, {"results"}, {"model_version_status"}, {"model_spec", "metadata"})
_GRPC_CODES = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}


@dataclass(frozen=True)
class Answer:
    """What came back: the code (an HTTP status or a gRPC code's name), the text or body, and its type."""

    code: str
    body: bytes = b""
    content_type: str = ""


@dataclass(frozen=True)
class Usage:
    """What a process uses now."""

    rss_mb: float
    threads: int
    files: int


def usage(pid: int) -> Usage:
    """Read it from /proc."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Usage(int(lines["VmRSS"].split()[0]) / 1024, int(lines["Threads"]), files)


class Caller:
    """Sends requests to one server: a connection for REST and a channel for gRPC, used by one thread."""

    def __init__(self, server: Any) -> None:
        self._rest_port = server.rest_port
        self._connection: socket.socket | None = None
        self._channel = grpc.insecure_channel(f"127.0.0.1:{server.port}", options=_LIMITS)

    def close(self) -> None:
        self._disconnect()
        self._channel.close()

    def send(self, request: Request) -> Answer:
        """Send a request and wait for the answer.

        Raises:
            OSError, http.client.HTTPException: no answer, or none that can be read.
        """
        return self._send_rest(request) if request.face == "rest" else self._send_grpc(request)

    def _send_grpc(self, request: Request) -> Answer:
        call = self._channel.unary_unary(request.method)  # bytes in, bytes out
        try:
            return Answer("OK", call(request.data, timeout=request.timeout_s or DEADLINE_S))
        except grpc.RpcError as error:
            return Answer(error.code().name, (error.details() or "").encode())

    def _send_rest(self, request: Request) -> Answer:
        if self._connection is None:
            self._connection = socket.create_connection(("127.0.0.1", self._rest_port), timeout=DEADLINE_S)
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._connection
        keep = False
        try:
            if not request.whole:
                return self._send_broken(connection, request)
            self._write(connection, request)
            with http.client.HTTPResponse(connection, method=request.method) as response:
                response.begin()
                body = response.read()
                keep = not response.will_close
                return Answer(str(response.status), body, response.headers.get("Content-Type", ""))
        finally:
            if not keep:
                self._disconnect()

    def _write(self, connection: socket.socket, request: Request) -> None:
        rest = request.data
        for size in request.pieces:
            connection.sendall(rest[:size])
            rest = rest[size:]
        connection.sendall(rest)

    def _send_broken(self, connection: socket.socket, request: Request) -> Answer:
        """Send what is no proper request, say that nothing follows, and read until the server closes."""
        read = bytearray()
        with suppress(OSError):  # the server may close as soon as it has seen enough; then there is no end to shut
            self._write(connection, request)
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while part := connection.recv(65536):
                read += part
        codes = _STATUS_LINE.findall(read)
        return Answer(codes[0].decode() if codes else "closed" if not read else "noise", bytes(read))

    def _disconnect(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None


def tracebacks(log: str) -> list[str]:
    """The tracebacks in a server's log."""
    return re.findall(r"^Traceback .*\n(?: .*\n)*.*", log, re.M)


def problem(request: Request, answer: Answer) -> str:
    """Say what is wrong with an answer, "" where nothing is."""
    if request.face == "grpc":
        return _grpc_problem(request, answer)
    if not request.whole:
        wrong = answer.code == "noise" or (answer.code.startswith("5") and answer.code != "501")
        return f"answered {answer.code}" if wrong else ""
    if not request.path.lower().startswith("/v1/"):
        return "" if answer.code in ("200", "400", "404") else f"answered {answer.code} outside of /v1/"
    return _rest_problem(request, answer)


def _grpc_problem(request: Request, answer: Answer) -> str:
    allowed = set(_GRPC_CODES)
    if request.timeout_s:
        allowed |= {"DEADLINE_EXCEEDED", "CANCELLED"}
    if not request.is_parsable():
        allowed = {"INTERNAL"} | (allowed & {"DEADLINE_EXCEEDED", "CANCELLED"})
    if answer.code not in allowed:
        return f"code {answer.code}"
    return "" if answer.code == "OK" or answer.body else f"{answer.code} without a text"


def _rest_problem(request: Request, answer: Answer) -> str:
    if request.method == "HEAD" and answer.code == "400":
        return ""  # no body to look at
    if answer.code == "400" and re.search("%(?![0-9a-fA-F]{2})", request.path):
        return ""  # no path at all, for libevent: its own page says so
    if request.method == "OPTIONS" and answer.code in ("200", "400"):
        return "" if not answer.body else "OPTIONS with a body"
    if answer.code == "400" and not answer.body and re.search(r"/versions/\d{19,}", request.path, re.IGNORECASE):
        return ""  # a version that is no int64
    if answer.code not in ("200", "400", "404", "501"):
        return f"status {answer.code}"
    if answer.content_type != "application/json":
        return f"Content-Type {answer.content_type!r}"
    try:
        document = json.loads(answer.body.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        return f"the answer is no JSON: {error}"
    if answer.code == "200":
        return "" if document.keys() in _ANSWER_KEYS else f"keys {sorted(document)}"
    if document.keys() != {"error"} or not isinstance(document["error"], str) or not document["error"]:
        return f"an error of another form: {answer.body[:200]!r}"
    if answer.code == "501" and "to type: " not in document["error"]:
        return "UNIMPLEMENTED that is no missing conversion"
    return ""


class Bystander:
    """A client that sends good requests, over and over, and checks each answer's values."""

    def __init__(self, server: Any) -> None:
        self.count, self.failures, self.longest_s = 0, [], 0.0
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_S)

    def _run(self) -> None:
        http_connection = http.client.HTTPConnection("127.0.0.1", self._server.rest_port, timeout=DEADLINE_S)
        with grpc.insecure_channel(f"127.0.0.1:{self._server.port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not self._stop.wait(0.005):
                for ask in (self._ask_rest, self._ask_grpc):
                    start = time.monotonic()
                    try:
                        ask(http_connection if ask == self._ask_rest else stub)
                    except (OSError, http.client.HTTPException, grpc.RpcError, ValueError) as error:
                        self.failures.append(f"{ask.__name__}: {type(error).__name__}: {error}")
                        http_connection.close()
                    self.longest_s = max(self.longest_s, time.monotonic() - start)
                    self.count += 1
        http_connection.close()

    def _ask_rest(self, connection: http.client.HTTPConnection) -> None:
        connection.request("POST", "/v1/models/m:predict", json.dumps({"instances": [self.count, 1]}))
        response = connection.getresponse()
        body = response.read()
        if (response.status, json.loads(body)) != (200, {"predictions": [self.count * 0.5 + 2, 2.5]}):
            raise ValueError(f"{response.status} {body!r}")

    def _ask_grpc(self, stub: Any) -> None:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "m"
        request.inputs["x"].dtype = 1
        request.inputs["x"].tensor_shape.dim.add(size=1)
        request.inputs["x"].float_val.append(self.count)
        values = list(stub.Predict(request, timeout=DEADLINE_S).outputs["y"].float_val)
        if values != [self.count * 0.5 + 2]:
            raise ValueError(f"{values}")


@dataclass
class Report:
    """What a run found."""

    codes: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[tuple[int, Request, str]] = field(default_factory=list)
    before: Usage | None = None  # after warm-up
    after: Usage | None = None
    good_requests: int = 0
    good_failures: list[str] = field(default_factory=list)
    good_longest_s: float = 0.0

    def lines(self) -> Iterator[str]:
        """Write it for a person."""
        for (face, code), count in sorted(self.codes.items()):
            yield f"{face} {code:<20} {count:>8}"
        yield f"good requests beside: {self.good_requests}, failed {len(self.good_failures)}"
        yield f"the slowest good one took {self.good_longest_s:.2f} s"
        yield f"after warm-up: {self.before}"
        yield f"at the end:    {self.after}"
        for number, _, why in self.failures[:20]:
            yield f"FAILED request {number}: {why}"
        for why in self.good_failures[:20]:
            yield f"FAILED good request: {why}"


def run(
    server: Any, count: int, seed: int, threads: int = 4, progress: Callable[[int], None] = lambda done: None
) -> Report:
    """Send `count` requests from several threads, and good ones beside them."""
    report, lock = Report(), threading.Lock()
    numbers = iter(range(count))

    def work() -> None:
        with _caller(server) as caller:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None or server.process.poll() is not None:
                    return
                request = fuzz_requests.make(seed, number)
                why, code = ask(caller, request)
                with lock:
                    report.codes[request.face, code] += 1
                    if why:
                        report.failures.append((number, request, why))
                if number == count // WARM_UP_SHARE:
                    report.before = usage(server.process.pid)
                if number and number % 1000 == 0:
                    progress(number)

    with Bystander(server) as bystander:
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    report.good_requests, report.good_failures = bystander.count, bystander.failures
    report.good_longest_s = bystander.longest_s
    if server.process.poll() is None:
        report.after = usage(server.process.pid)
    return report


@contextmanager
def _caller(server: Any) -> Iterator[Caller]:
    caller = Caller(server)
    try:
        yield caller
    finally:
        caller.close()


def ask(caller: Caller, request: Request) -> tuple[str, str]:
    """Send one request; returns what was wrong ("" for nothing) and the answer's code."""
    try:
        answer = caller.send(request)
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {type(error).__name__}: {error}", "none"
    why = problem(request, answer)
    return (f"{why}; the answer began {answer.body[:300]!r}" if why else ""), answer.code


def main() -> int:
    """Start a server, send it requests, print a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="requests to send (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed sends the same requests (default 1)")
    parser.add_argument("--threads", type=int, default=4, help="clients at once (default %(default)s)")
    parser.add_argument("--batching", action="store_true", help="start the server with --enable_batching")
    parser.add_argument("--save", type=Path, default=Path("runs/fuzz"), help="where failing requests go (%(default)s)")
    parser.add_argument("--replay", type=Path, help="send one saved request and print the answer")
    options = parser.parse_args()

    from conftest import Servers, save_model  # not at the top: the tests have these as fixtures

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "m"
        save_model(base / "1")
        servers = Servers(Path(folder))
        try:
            flags = ["--model_name=m", f"--model_base_path={base}"] + ["--enable_batching"] * options.batching
            return _replay(servers(*flags), options.replay) if options.replay else _fuzz(servers(*flags), options)
        finally:
            servers.end()


def _replay(server: Any, file: Path) -> int:
    request = Request.from_json(json.loads(file.read_text())["request"])
    with _caller(server) as caller:
        why, code = ask(caller, request)
    print(f"{request}\ncode {code}; {why or 'nothing is wrong with that'}")
    return 1 if why else 0


def _fuzz(server: Any, options: argparse.Namespace) -> int:
    start = time.monotonic()
    print(f"sending {options.count} requests, seed {options.seed}", flush=True)
    report = run(
        server,
        options.count,
        options.seed,
        options.threads,
        lambda done: print(
            f"{done} requests, {time.monotonic() - start:.0f} s, {usage(server.process.pid)}", flush=True
        ),
    )
    print("\n".join(report.lines()))
    for number, request, why in report.failures:
        options.save.mkdir(parents=True, exist_ok=True)
        file = options.save / f"{options.seed}-{number}.json"
        file.write_text(json.dumps({"seed": options.seed, "number": number, "why": why, "request": request.to_json()}))
        print(f"saved {file}")
    log = server.log.read_text(errors="replace")
    failed_inside = tracebacks(log)
    if failed_inside:
        print(f"FAILED: the server's log has a traceback:\n{failed_inside[0][:3000]}")
    if server.process.poll() is not None:
        print(f"FAILED: the server ended with {server.process.returncode}:\n{log[-3000:]}")
    return 1 if report.failures or report.good_failures or failed_inside or not report.after else 0


if __name__ == "__main__":
    sys.exit(main())
