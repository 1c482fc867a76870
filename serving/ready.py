"""Waits until a prediction and the page have come through the gateway, and says so.

python -m serving.ready    # run by `make up`; also fit for scripts: exit status 0 once ready
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import requests

from serving.client import ServingClient, ServingError
from serving.client.environment import DEFAULT_MODEL, DEFAULT_REST_PORT, gateway_url, read_env_file

TIMEOUT_S = 180.0
PAUSE_S = 0.2
DEFAULT_UI_PORT = "8502"


def main() -> int:
    """Polls, prints the address and where the password is, and ends."""
    started = time.monotonic()
    env = {name: value for name, value in os.environ.items() if value}
    url = gateway_url(env)
    gateway = urlsplit(url)
    parts = [
        ("127.0.0.1", int(env.get("SERVING_REST_PORT", DEFAULT_REST_PORT))),
        ("127.0.0.1", int(env.get("UI_PORT", DEFAULT_UI_PORT))),
        (gateway.hostname or "", gateway.port or 0),
    ]
    user, password = env.get("GATEWAY_USER", "vitrine"), env.get("GATEWAY_PASSWORD", "")
    problem = "not all of model server, UI and gateway listen"
    with ServingClient(url, user, password, model=env.get("MODEL_NAME", DEFAULT_MODEL), retries=0) as client:
        while time.monotonic() - started < TIMEOUT_S:
            # nothing is asked of the gateway before: it would log every refusal of a part that is still starting
            if not all(_listening(address) for address in parts):
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
            print(f"    open      {url}\n    user      {user}\n    password  GATEWAY_PASSWORD {_source(env)}")
            print("    stop      Ctrl-C\n", flush=True)
            return 0
    print(f"error: not ready after {TIMEOUT_S:.0f} s: {problem}", file=sys.stderr, flush=True)
    return 1


def _listening(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def _source(env: dict[str, str]) -> str:
    """Where the user finds the password: what was exported wins over the file."""
    file = Path(env.get("VITRINE_ENV_FILE", ".env"))
    in_file = read_env_file(file).get("GATEWAY_PASSWORD") == env.get("GATEWAY_PASSWORD")
    return f"in {file}" if in_file else "from the environment"


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends without a traceback
    raise SystemExit(main())
