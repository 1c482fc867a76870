"""The page in a real browser: a real Streamlit process, headless Chromium, a real HTTP server behind."""

import base64
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import browser_steps as steps
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "tests/artifacts"
DEADLINE_S = 60

pytestmark = steps.needs_chromium


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def wait_until_healthy(process: subprocess.Popen, url: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"streamlit ended with {process.returncode}"
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    pytest.fail(f"streamlit did not answer within {DEADLINE_S} s")


@pytest.fixture
def app_url(serving, tmp_path) -> Iterator[str]:
    """The page in its own process, started as the Procfile starts it."""
    port = free_port()
    environment = {**os.environ, "SERVING_URL": serving.url, "HOME": str(tmp_path)}
    for name in ("GATEWAY_USER", "GATEWAY_PASSWORD", "MODEL_NAME", "MODEL_CONFIG_FILE"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "streamlit", "run", "ui/app.py"]
    with (tmp_path / "streamlit.log").open("w") as log:
        process = subprocess.Popen(
            [*command, f"--server.port={port}", "--server.address=127.0.0.1"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(process, url)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert "Traceback" not in (tmp_path / "streamlit.log").read_text()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with steps.browser() as browser:
        yield browser


@pytest.fixture
def tab(chromium) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


def test_a_visit(app_url, serving, tab, tmp_path):
    """Open, choose, explain, contrast, fade, upload, fail, recover; no other host is ever asked."""
    hosts = steps.hosts_asked(tab)
    serving.winner = 9
    steps.open_page(tab, app_url)
    expect(tab).to_have_title("Look · Vitrine")
    assert tab.get_by_text("Deploy").count() == 0

    steps.choose_sample(tab, 0)
    assert steps.predicted(tab) == "Ankle boot"
    said_to_screen_readers = tab.get_by_role("status").filter(has_text="Ankle boot")
    expect(said_to_screen_readers.get_by_role("heading", level=2)).to_have_text("Ankle boot")
    expect(tab.get_by_text("Right: the true label is Ankle boot")).to_be_visible()
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=ARTIFACTS / "ui_gallery.png")

    asked = len(serving.predicts)
    before = steps.evidence(tab).get_attribute("src")
    steps.set_opacity(tab, -4)
    expect(tab.get_by_text("50%")).to_be_visible()
    expect(steps.evidence(tab)).not_to_have_attribute("src", before)
    steps.pick(tab, "rather than", "Sneaker")
    expect(tab.get_by_text("Evidence for Ankle boot rather than Sneaker")).to_be_visible()
    steps.pick(tab, "Evidence for", "Coat")
    expect(tab.get_by_text("No positive evidence for this class")).to_be_visible()
    assert serving.predicts[asked:] == ["explain_fine"] * 2, "drawing anew asks for nothing but maps, once a class"

    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (300, 400), "teal").save(photo)
    steps.upload(tab, photo)
    expect(tab.get_by_text("Right: the true label")).to_have_count(0)
    steps.wait_for_answer(tab)
    assert photo.read_bytes() in serving.sent

    serving.stop()
    noise = tmp_path / "other.jpg"
    Image.new("RGB", (300, 400), "olive").save(noise)
    time.sleep(5.1)  # the version is looked up again only then
    steps.upload(tab, noise)
    expect(tab.get_by_text("The model server is away")).to_be_visible(timeout=steps.PATIENCE_MS)
    tab.screenshot(path=ARTIFACTS / "ui_away.png")
    serving.start()
    steps.wait_for_answer(tab)  # nobody clicked anything
    expect(tab.get_by_text("50%")).to_be_visible()
    expect(tab.get_by_text("The model server is away")).to_have_count(0)

    assert hosts == {app_url.split("/")[2]}


def test_the_page_opens_with_the_gallery_and_takes_a_dropped_file(app_url, serving, tab):
    steps.open_page(tab, app_url)
    expect(steps.sample(tab, 0)).to_be_in_viewport()
    tab.screenshot(path=ARTIFACTS / "ui_open.png")
    zone = tab.get_by_test_id("stFileUploaderDropzone")
    expect(zone).to_be_in_viewport()
    buffer = io.BytesIO()
    Image.new("RGB", (300, 400), "teal").save(buffer, "PNG")
    content = base64.b64encode(buffer.getvalue()).decode()
    dropped = tab.evaluate_handle(
        """content => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
            transfer.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
            return transfer;
        }""",
        content,
    )
    zone.dispatch_event("drop", {"dataTransfer": dropped})
    steps.wait_for_answer(tab)
    assert serving.sent[0] == buffer.getvalue()
    steps.choose_sample(tab, 0)
    expect(tab.get_by_text("dropped.png")).to_have_count(0)
    expect(tab.get_by_role("button", name="Ankle boot (test image 0, chosen)")).to_have_count(1)


def test_on_a_phone_with_the_keyboard(app_url, serving, chromium):
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    tab = context.new_page()
    tab.set_default_timeout(steps.PATIENCE_MS)
    # The very first visit to this process goes to the second page, which must not come up empty.
    tab.goto(f"{app_url}/call")
    expect(tab.get_by_text("Signatures of version 1")).to_be_visible(timeout=steps.PATIENCE_MS)

    steps.open_page(tab, app_url)
    expect(steps.sample(tab, 19)).to_be_in_viewport()
    tab.screenshot(path=ARTIFACTS / "ui_phone_open.png")
    steps.sample(tab, 0).focus()
    tab.keyboard.press("Enter")
    steps.wait_for_answer(tab)
    expect(steps.sample(tab, 0)).to_be_focused()
    overhang = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert tab.evaluate(overhang) == 0
    whole, evidence = (tab.locator(".st-key-pictures img").nth(i).bounding_box() for i in range(2))
    assert whole["y"] == evidence["y"], "the picture stands beside its map"
    assert evidence["x"] > whole["x"] + whole["width"]
    tab.screenshot(path=ARTIFACTS / "ui_phone.png")
    context.close()


def test_too_large_a_file_is_refused_before_it_travels(app_url, tab, tmp_path):
    steps.open_page(tab, app_url)
    huge = tmp_path / "huge.png"
    huge.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(11 * 1024 * 1024))
    steps.upload(tab, huge)
    expect(tab.get_by_text(re.compile("must be 10.*MB or smaller"))).to_be_visible()
