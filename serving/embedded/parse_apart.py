"""Parses a large :predict body in a process of its own.

While Python parses JSON no other thread of a process gets on: requests beside a body of 1 GB would wait for seconds.
And where the memory does not suffice, it is this process that ends, not the server.

    python -m serving.embedded.parse_apart    # reads the wanted inputs, a line of JSON, and the body; writes a pickle
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from pathlib import Path

from serving.embedded import json_tensors
from serving.embedded.errors import Code, ServingError


async def read_predict_body(body: bytes, wanted: Mapping[str, Mapping[str, int]]) -> json_tensors.PredictBody:
    """Turn a :predict body into tensors, as `json_tensors.read_predict_body` does."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "serving.embedded.parse_apart", stdin=PIPE, stdout=PIPE, env=environment
    )
    process.stdin.write(json.dumps(wanted).encode() + b"\n")  # type: ignore[union-attr]  # it is a pipe
    answer, _ = await process.communicate(body)
    if process.returncode:
        raise ServingError(
            Code.RESOURCE_EXHAUSTED,
            f"A body of {len(body)} bytes could not be parsed: its process ended with {process.returncode}; "
            "send fewer instances at once",
        )
    found = pickle.loads(answer)  # from our own process
    if isinstance(found, json_tensors.PredictBody):
        return found
    raise ServingError(*found)


def main() -> None:
    with contextlib.suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text("1000")  # where the memory ends, this process goes first
    wanted = json.loads(sys.stdin.buffer.readline())
    try:
        found: object = json_tensors.read_predict_body(sys.stdin.buffer.read(), wanted)
    except ServingError as error:
        found = (error.code, error.message)
    with contextlib.suppress(BrokenPipeError):  # the server is gone
        pickle.dump(found, sys.stdout.buffer, protocol=5)


if __name__ == "__main__":
    main()
