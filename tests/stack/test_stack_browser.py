"""A person at the door: logs in, picks a picture, reads what it is and sees why."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import browser_steps as steps
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Error, Page, expect

ARTIFACTS = Path(__file__).resolve().parents[1] / "artifacts"

pytestmark = steps.needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with steps.browser() as chromium:
        yield chromium


@pytest.fixture
def page(stack, browser) -> Iterator[Page]:
    """A tab of somebody who knows the password; nothing in it may be refused by the Content Security Policy."""
    context = browser.new_context(
        http_credentials={"username": stack.user, "password": stack.password}, viewport={"width": 1280, "height": 1000}
    )
    page = context.new_page()
    page.set_default_timeout(steps.PATIENCE_MS)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    yield page
    context.close()
    assert not problems


def test_gallery_image_is_named_and_explained(stack, page):
    sample = json.loads((ARTIFACTS.parents[1] / "ui/samples/index.json").read_text())[0]
    steps.open_page(page, stack.url)
    steps.choose_sample(page, sample["test_index"])
    expect(page.get_by_text(f"the true label is {sample['label']}")).to_be_visible()
    assert steps.predicted(page) in page.locator(".vt-bars li").first.inner_text()
    drawn = steps.evidence(page).get_attribute("src")
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / "stack_gallery.png", full_page=True)
    steps.set_opacity(page, -4)
    expect(steps.evidence(page)).not_to_have_attribute("src", drawn, timeout=steps.PATIENCE_MS)
    steps.wait_for_answer(page)


def test_the_recipe_for_curl_takes_a_photo_larger_than_a_command_line(stack, page, tmp_path):
    page.goto(f"{stack.url}/call")
    recipe = page.locator("code", has_text="curl").first.inner_text()
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 500_000
    command = recipe.replace(f"-u {stack.user} ", f"-u {stack.user}:{stack.password} ")
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictions"][0]["class_name"]


def test_without_a_password_there_is_no_page(stack, browser):
    with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
        browser.new_page().goto(stack.url)
