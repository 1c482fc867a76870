"""What a person does on the page, as functions on a Playwright page; usable against any stack, the gateway included."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 60_000


def find_chromium() -> str | None:
    """Where Chromium or Chrome is; distributions name it differently."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


needs_chromium = pytest.mark.skipif(
    find_chromium() is None, reason="neither Chromium nor Chrome is here; on Debian: apt-get install chromium"
)


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium, closed at the end."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=list(ARGUMENTS))
        try:
            yield chromium
        finally:
            chromium.close()


def open_page(page: Page, url: str) -> None:
    """Open the page and wait until the gallery can be clicked."""
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    expect(sample(page, 0)).to_be_visible(timeout=PATIENCE_MS)


def sample(page: Page, test_index: int) -> Locator:
    """The gallery's button of a test image."""
    return page.locator(f".st-key-sample-{test_index} button")


def choose_sample(page: Page, test_index: int) -> None:
    """Click a gallery picture and wait for its answer."""
    sample(page, test_index).click()
    expect(sample(page, test_index)).to_have_css("border-color", "rgb(15, 102, 115)", timeout=PATIENCE_MS)
    wait_for_answer(page)


def upload(page: Page, path: Path) -> None:
    """Send a file of one's own."""
    page.locator("input[type=file]").set_input_files(path)


def wait_for_answer(page: Page) -> None:
    """Wait until nothing is being computed and an answer stands on the page, its drawings loaded."""
    expect(page.get_by_text(re.compile("Answered by"))).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator('[data-testid="stApp"][data-test-script-state="running"]')).to_have_count(0)
    page.wait_for_function(
        "[...document.querySelectorAll('.st-key-pictures img')].length > 0 &&"
        "[...document.querySelectorAll('.st-key-pictures img')].every(i => i.complete && i.naturalWidth > 0)",
        timeout=PATIENCE_MS,
    )


def predicted(page: Page) -> str:
    """The name the page gives to the picture."""
    return page.locator(".vt-name").inner_text()


def evidence(page: Page) -> Locator:
    """The drawing of the evidence; another drawing has another `src`."""
    return page.locator('.st-key-pictures img[alt^="The picture with the places"]')


def set_opacity(page: Page, presses: int) -> None:
    """Move the opacity by key presses: 5 % each, to the left when negative."""
    thumb = page.get_by_role("slider")
    thumb.focus()
    for _ in range(abs(presses)):
        thumb.press("ArrowRight" if presses > 0 else "ArrowLeft")


def pick(page: Page, label: str, option: str) -> None:
    """Choose an option of the select box with this label."""
    page.get_by_role("combobox", name=re.compile(label)).click()
    page.get_by_role("option", name=re.compile(rf"^{re.escape(option)}")).click()


def hosts_asked(page: Page) -> set[str]:
    """A set that fills with every host the page asks from now on."""
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]) if request.url.startswith("http") else None)
    return hosts
