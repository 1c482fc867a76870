"""A person at the door: logs in, picks a picture, reads what it is and sees why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import browser_steps as steps
import pytest
from playwright.sync_api import Error

ARTIFACTS = Path(__file__).resolve().parents[1] / "artifacts"

pytestmark = pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not here: apt-get install chromium")


def test_gallery_image_is_named_and_explained(stack):
    sample = json.loads((ARTIFACTS.parents[1] / "ui/samples/index.json").read_text())[0]
    with steps.browser() as browser:
        context = browser.new_context(
            http_credentials={"username": stack.user, "password": stack.password},
            viewport={"width": 1280, "height": 1000},
        )
        page = context.new_page()
        problems: list[str] = []
        page.on(
            "console", lambda message: problems.append(message.text) if "Content Security" in message.text else None
        )
        steps.open_page(page, stack.url)
        steps.choose_sample(page, sample["test_index"])
        assert steps.predicted(page)
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / "stack_gallery.png", full_page=True)
        steps.set_opacity(page, 30)
        assert not problems
        context.close()


def test_without_a_password_there_is_no_page(stack):
    with steps.browser() as browser, pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
        browser.new_page().goto(stack.url)
