"""Load in a closed loop: every connection sends its next request as soon as the last one is answered.

The generators are wrk (REST) and h2load (gRPC), both in C: they take a few per cent of a core, which is not there for
the servers. Debian: apt-get install wrk nghttp2-client.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_LONGEST_S = 60
_TIMEOUT_S = 60
_WRK_SCRIPT = """\
wrk.method = "POST"
wrk.body = io.open({body}, "rb"):read("*a")
for name, value in pairs({headers}) do wrk.headers[name] = value end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('\\n{{"requests": %d, "us": %d, "errors": %d, "p50": %d, "p95": %d, "p99": %d}}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end
"""


class LoadError(RuntimeError):
    """The load could not be made, or did not measure what it should."""


@dataclass(frozen=True)
class Request:
    """What is sent over and over: a POST, or with `grpc` a unary call, whose URL has http:// as its scheme."""

    url: str
    body: bytes
    headers: Mapping[str, str]
    grpc: bool = False


@dataclass(frozen=True)
class Measurement:
    """Figures of one run; latencies in milliseconds."""

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.seconds


def check_tools() -> None:
    """Looks for the generators.

    Raises:
        LoadError: one is missing.
    """
    missing = [name for name in ("wrk", "h2load") if not shutil.which(name)]
    if missing:
        raise LoadError(f"{' and '.join(missing)} not found; on Debian: apt-get install wrk nghttp2-client")


def measure(request: Request, connections: int, seconds: int) -> Measurement:
    """Runs the load, longer than asked for where a slow server answers nothing in that time.

    Raises:
        LoadError: the generator failed, or nothing was answered in a minute.
    """
    with tempfile.TemporaryDirectory() as scratch:
        body = Path(scratch, "body")
        length_prefix = struct.pack(">BI", 0, len(request.body)) if request.grpc else b""  # not compressed
        body.write_bytes(length_prefix + request.body)
        while seconds <= _LONGEST_S:
            measured = (_h2load if request.grpc else _wrk)(request, connections, seconds, body)
            if measured is not None:
                return measured
            seconds *= 2
    raise LoadError(f"{request.url} answered nothing in {seconds // 2} s")


def _wrk(request: Request, connections: int, seconds: int, body: Path) -> Measurement | None:
    headers = ", ".join(f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in request.headers.items())
    script = body.with_suffix(".lua")
    script.write_text(_WRK_SCRIPT.format(body=json.dumps(str(body)), headers=f"{{{headers}}}"), encoding="utf-8")
    command = ["wrk", "-t1", f"-c{connections}", f"--timeout={_TIMEOUT_S}s", f"--script={script}"]
    found = json.loads(_output([*command, f"-d{seconds}s", request.url]).splitlines()[-1])
    if not found["requests"]:
        return None
    percentiles = (found[name] / 1000 for name in ("p50", "p95", "p99"))
    return Measurement(found["requests"], found["us"] / 1e6, found["errors"], *percentiles)


def _h2load(request: Request, connections: int, seconds: int, body: Path) -> Measurement | None:
    log = body.with_suffix(".log")
    headers = {"content-type": "application/grpc", "te": "trailers", **request.headers}
    command = ["h2load", "-t1", "-m1", f"--data={body}", *(f"-H{name}: {value}" for name, value in headers.items())]
    # Whether a call failed stands in the trailers, which h2load does not read; but then there is no message either.
    _, answer_bytes = _done_and_data([*command, "-n1", "-c1", request.url])
    if not answer_bytes:
        raise LoadError(f"{request.url} answered an error")
    options = [f"-c{connections}", f"-D{seconds}", f"--log-file={log}"]
    done, data_bytes = _done_and_data([*command, *options, request.url])
    answered = data_bytes // answer_bytes
    if not answered:
        return None
    latencies_ms = np.loadtxt(log, dtype=np.int64, ndmin=2)[:, 2] / 1000  # start (us), status, duration (us)
    percentiles = (float(value) for value in np.percentile(latencies_ms, [50, 95, 99]))
    # A call that the end of the run cut between its message and its trailers has an answer and is not done.
    return Measurement(min(answered, done), float(seconds), max(0, done - answered), *percentiles)


def _done_and_data(command: list[str]) -> tuple[int, int]:
    """Requests done, and the bytes of all messages that came."""
    output = _output(command)
    done = re.search(r"^requests: .* (\d+) done,", output, re.M)
    data = re.search(r"\((\d+)\) data$", output, re.M)
    if not done or not data:
        raise LoadError(f"h2load said what is not understood:\n{output}")
    return int(done[1]), int(data[1])


def _output(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise LoadError(f"{' '.join(command)} failed:\n{result.stderr or result.stdout}")
    return result.stdout
