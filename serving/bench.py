"""Load on the running stack: every connection sends its next request as soon as the last one is answered.

    python -m serving bench --seconds 5

Good for comparing on one machine: the gateway with the model server behind it, REST with gRPC, one version or setting
with another, and for seeing from how many connections on requests only wait. The load comes from the same machine and
takes its share of the cores, so over REST it is kept cheap: one event loop, bare sockets and a C parser, no client
library. Not good for what users see at a given rate of arrivals: connections that wait for a slow answer send nothing
meanwhile, which flatters the high percentiles.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import platform
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

import httptools
import numpy as np
from PIL import Image, ImageOps

from serving.client import ServerUnavailable, ServingClient, ServingError
from serving.client.base import BaseClient
from serving.client.environment import env_folders, model_server
from serving.client.grpc import GrpcServingClient
from serving.client.transport import is_loopback
from serving.commands import FAILED, OK, UsageError, print_json, print_table

CONNECTIONS = (1, 8, 32)
WARM_UP_S = 1.0
_PAUSE_S = 0.05  # after a lost connection, so that a dead server is not hammered
HEADER = ["target", "request", "connections", "requests/s", "p50 ms", "p95 ms", "p99 ms", "errors"]


@dataclass(frozen=True)
class Target:
    """One thing to measure: where it answers, and as whom."""

    name: str
    rest_url: str
    grpc_url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Run:
    """Figures of one measurement; the percentiles are None where nothing was answered."""

    target: str
    request: str
    connections: int
    requests: int
    requests_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    errors: int


class Tally:
    """Counts what is answered between the end of the warm-up and the end of the measurement."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begins = time.perf_counter() + min(WARM_UP_S, seconds)
        self.ends = self.begins + seconds
        self.latencies_ms: list[float] = []
        self.errors = 0

    def over(self) -> bool:
        return time.perf_counter() >= self.ends

    def add(self, sent: float, *, ok: bool) -> None:
        """One answer, or failure, of now to a request of `sent`."""
        now = time.perf_counter()
        if not self.begins <= now < self.ends:
            return
        if ok:
            self.latencies_ms.append((now - sent) * 1000)
        else:
            self.errors += 1

    def run(self, target: str, request: str, connections: int) -> Run:
        """The figures."""
        count = len(self.latencies_ms)
        percentiles: list[float | None] = [None] * 3
        if count:
            percentiles = [round(float(value), 3) for value in np.percentile(self.latencies_ms, [50, 95, 99])]
        rate = round(count / self.seconds, 2)
        return Run(target, request, connections, count, rate, *percentiles, self.errors)


def bench(client: BaseClient, options: argparse.Namespace) -> int:
    """Measure, print a table, write a report; fails when any request did.

    Raises:
        ServingError: the stack does not answer.
        UsageError: the report cannot be written where it was asked for.
    """
    image = probe_image()
    version = _version(client, image, options.where.url)
    output = _checked_output(options.output)
    runs = []
    for target in _targets(options):
        runs += _measure(target, image, options)
    report = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "architecture": platform.machine(), "system": platform.system()},
        "model": client.model,
        "version": version,
        "seconds": options.seconds,
        "image": f"PNG, 28x28, {len(image)} bytes",
        "runs": [asdict(run) for run in runs],
    }
    output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if options.json:
        print_json(report)
    else:
        print_table(HEADER, [_row(run) for run in runs], right={2, 3, 4, 5, 6, 7})
    return FAILED if any(run.errors or not run.requests for run in runs) else OK


def _checked_output(name: str) -> Path:
    """Where to write, checked before the load."""
    output = Path(name)
    if output.is_dir():
        raise UsageError(f"-o {output}: is a folder; expected a file's name, such as bench.json")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"-o {output}: no folder can be made there ({error.strerror})") from error
    return output


def probe_image() -> bytes:
    """A PNG as small as a test image: a light blob on black, 28x28, grey."""
    buffer = io.BytesIO()
    ImageOps.invert(Image.radial_gradient("L")).resize((28, 28)).save(buffer, "PNG")
    return buffer.getvalue()


def _version(client: BaseClient, image: bytes, url: str) -> int | None:
    """The version that answers: one request through everything, before any load."""
    try:
        return client.predict([image])[0].version
    except ServerUnavailable as error:
        if is_loopback(url):
            error.args = (f"{error}; start it first: make up",)
        raise


def _targets(options: argparse.Namespace) -> list[Target]:
    """The address asked for, and the model server behind it where it is on this machine and answers."""
    where = options.where
    rest_url, grpc_url = model_server(os.environ, env_folders())
    direct = Target("model server", rest_url, grpc_url)
    if _same_server(where.url, rest_url):
        return [direct]
    gateway = Target("gateway", where.url, where.url, where.user, where.password)
    if not is_loopback(where.url):
        return [gateway]
    try:
        with ServingClient(rest_url, model=where.model, retries=0) as client:
            client.status()
    except ServingError as error:
        _note(f"only through the gateway: no model server at {rest_url} ({error})")
        return [gateway]
    return [gateway, direct]


def _same_server(one: str, other: str) -> bool:
    return is_loopback(one) and is_loopback(other) and urlsplit(one).port == urlsplit(other).port


def _note(text: str) -> None:
    """Something to know, beside the table."""
    sys.stderr.write(f"{text}\n")


def _measure(target: Target, image: bytes, options: argparse.Namespace) -> list[Run]:
    model = options.where.model
    runs = []
    for connections in CONNECTIONS:
        tally = Tally(options.seconds)
        asyncio.run(_rest_load(_rest_request(target, model, image), target, connections, tally, options))
        runs.append(tally.run(target.name, "REST predict", connections))
    with GrpcServingClient(
        target.grpc_url,
        target.user,
        target.password,
        model=model,
        timeout_s=options.timeout,
        retries=0,
        verify=options.cacert or True,
    ) as client:
        asks: dict[str, Callable[[list[bytes]], object]] = {"predict": client.predict, "explain": client.explain}
        for name, ask in asks.items():
            tally = Tally(options.seconds)
            _grpc_load(ask, image, tally)
            runs.append(tally.run(target.name, f"gRPC {name}", 1))
    return runs


def _grpc_load(ask: Callable[[list[bytes]], object], image: bytes, tally: Tally) -> None:
    while not tally.over():
        sent = time.perf_counter()
        try:
            ask([image])
        except ServingError:
            tally.add(sent, ok=False)
            time.sleep(_PAUSE_S)
        else:
            tally.add(sent, ok=True)


def _rest_request(target: Target, model: str, image: bytes) -> bytes:
    """The bytes of one predict request."""
    parts = urlsplit(target.rest_url)
    body = json.dumps({"inputs": {"image_bytes": [{"b64": base64.b64encode(image).decode()}]}}).encode()
    lines = [
        f"POST {parts.path}/v1/models/{quote(model, safe='')}:predict HTTP/1.1",
        f"Host: {parts.netloc}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    if target.user is not None:
        token = base64.b64encode(f"{target.user}:{target.password}".encode()).decode()
        lines.append(f"Authorization: Basic {token}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _rest_load(
    request: bytes, target: Target, connections: int, tally: Tally, options: argparse.Namespace
) -> None:
    parts = urlsplit(target.rest_url)
    tls = ssl.create_default_context(cafile=options.cacert) if parts.scheme == "https" else None
    port = parts.port or (443 if tls else 80)
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(_rest_connection(parts.hostname or "", port, tls, request, tally, options.timeout))


async def _rest_connection(
    host: str, port: int, tls: ssl.SSLContext | None, request: bytes, tally: Tally, timeout_s: float
) -> None:
    """One connection, opened anew where it was lost."""
    while not tally.over():
        sent, writer = time.perf_counter(), None
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            while not tally.over():
                sent = time.perf_counter()
                async with asyncio.timeout(timeout_s):
                    writer.write(request)
                    status = await _status_of_answer(reader)
                tally.add(sent, ok=status == 200)
        except (OSError, TimeoutError, httptools.HttpParserError):
            tally.add(sent, ok=False)
            await asyncio.sleep(_PAUSE_S)
        finally:
            if writer is not None:
                writer.close()


class _Answer:
    """Told by the parser when an answer is complete."""

    complete = False

    def on_message_complete(self) -> None:
        self.complete = True


async def _status_of_answer(reader: asyncio.StreamReader) -> int:
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    while not answer.complete:
        data = await reader.read(65536)
        if not data:
            raise ConnectionResetError("closed before the answer was complete")
        parser.feed_data(data)
    return int(parser.get_status_code())


def _row(run: Run) -> list[str]:
    percentiles = ["-" if value is None else f"{value:.1f}" for value in (run.p50_ms, run.p95_ms, run.p99_ms)]
    rate = f"{run.requests_per_s:.1f}"
    return [run.target, run.request, str(run.connections), rate, *percentiles, str(run.errors)]
