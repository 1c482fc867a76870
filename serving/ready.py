"""Waits until a prediction and the page have come through the gateway, and says so.

python -m serving.ready    # run by `make up`; also fit for scripts: exit status 0 once ready
"""

from __future__ import annotations

import os
import socket
import sys
import time

import numpy as np
import requests

from serving.client import ServingClient, ServingError
from serving.client.environment import DEFAULT_MODEL, DEFAULT_PORT

TIMEOUT_S = 180.0
PAUSE_S = 0.2
PARTS = {"SERVING_REST_PORT": "8501", "UI_PORT": "8502", "GATEWAY_PORT": DEFAULT_PORT}


def main() -> int:
    """Polls, prints the address and where the password is, and ends."""
    started = time.monotonic()
    host = os.environ.get("GATEWAY_BIND") or "127.0.0.1"
    local = "127.0.0.1" if host in ("0.0.0.0", "::", "*") else host  # noqa: S104 - compared, not bound
    url = f"http://{local}:{os.environ.get('GATEWAY_PORT') or DEFAULT_PORT}"
    user, password = os.environ.get("GATEWAY_USER") or "vitrine", os.environ.get("GATEWAY_PASSWORD") or ""
    problem = "not all of model server, UI and gateway listen"
    with ServingClient(url, user, password, model=os.environ.get("MODEL_NAME") or DEFAULT_MODEL, retries=0) as client:
        while time.monotonic() - started < TIMEOUT_S:
            # nothing is asked of the gateway before: it would log every refusal of a part that is still starting
            if not all(_listening(os.environ.get(name) or default) for name, default in PARTS.items()):
                time.sleep(PAUSE_S)
                continue
            try:
                client.predict(np.zeros((28, 28), np.uint8))
                requests.get(f"{url}/_stcore/health", auth=(user, password), timeout=5).raise_for_status()
            except (ServingError, requests.RequestException) as error:
                problem = str(error)
                time.sleep(PAUSE_S)
                continue
            seconds = time.monotonic() - started
            print(f"\n  Vitrine is ready after {seconds:.1f} s: a prediction came through the gateway.\n")
            print(f"    open      {url}\n    user      {user}\n    password  GATEWAY_PASSWORD in .env")
            print("    stop      Ctrl-C\n", flush=True)
            return 0
    print(f"error: not ready after {TIMEOUT_S:.0f} s: {problem}", file=sys.stderr, flush=True)
    return 1


def _listening(port: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


if __name__ == "__main__":
    raise SystemExit(main())
