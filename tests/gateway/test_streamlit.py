"""The installed Streamlit behind the gateway: its page, its websocket by cookie, its origin, the content policy."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import sys
import time
from base64 import b64encode
from pathlib import Path

import pytest
import requests
import streamlit
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def behind(start_gateway, world, ports):
    """A gateway in front of a real Streamlit."""
    folder = world()
    script = folder / "app.py"
    script.write_text("import streamlit as st\nst.write(sorted(st.context.headers.keys()))\n")
    port = _free_port()
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", str(script), f"--server.port={port}",
             "--server.address=127.0.0.1", "--server.headless=true", "--browser.gatherUsageStats=false",
             "--server.fileWatcherType=none"],
            cwd=folder, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)},
        )  # fmt: skip
    try:
        with start_gateway(**{**ports, "UI_PORT": port}) as own:
            _wait_for_page(own)
            yield own
    finally:
        process.terminate()
        process.wait(60)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for_page(own):
    deadline = time.monotonic() + 60
    while requests.get(f"{own.url}/_stcore/health", auth=own.auth, timeout=30).status_code != 200:
        assert time.monotonic() < deadline, "Streamlit did not start"
        time.sleep(0.1)


def handshake(own, cookie, origin):
    try:
        with connect(
            f"ws://127.0.0.1:{own.port}/_stcore/stream", proxy=None, origin=origin, subprotocols=["streamlit"],
            additional_headers={"Cookie": cookie},
        ):  # fmt: skip
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def test_page_assets_and_websocket(behind):
    page = requests.get(f"{behind.url}/", auth=behind.auth, timeout=30)
    assert page.status_code == 200
    asset = re.search(r'src="\./(static/js/[^"]+)"', page.text)[1]
    assert requests.get(f"{behind.url}/{asset}", auth=behind.auth, timeout=30).status_code == 200
    assert requests.get(f"{behind.url}/{asset}", timeout=30).status_code == 401
    cookie = page.headers["Set-Cookie"].split(";")[0]
    assert cookie.startswith("vitrine_stream=")
    assert handshake(behind, cookie, behind.url) == 101
    assert handshake(behind, cookie, "http://evil.example") == 403
    assert handshake(behind, "x=1", behind.url) == 401


def test_the_page_has_one_set_of_security_headers(behind):
    raw = requests.get(f"{behind.url}/", auth=behind.auth, timeout=30).raw.headers
    for name in ("Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy"):
        assert len(raw.getlist(name)) == 1


def test_the_content_policy_allows_streamlits_one_inline_script():
    index = (Path(streamlit.__file__).parent / "static" / "index.html").read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", index, re.DOTALL)
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (ROOT / "gateway" / "conf" / "security_headers.conf").read_text()
    assert f"'sha256-{digest}'" in policy
