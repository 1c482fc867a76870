"""The main page through Streamlit's own test driver, before a real HTTP server."""

import io
import re

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest


def html(page: AppTest) -> str:
    """Everything the page says in HTML, style sheets left out."""
    return "\n".join(element.proto.body for element in page.html if "<style>" not in element.proto.body)


def choose(page: AppTest, test_index: int) -> AppTest:
    return page.button(key=f"sample-{test_index}").click().run()


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 60), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "teal").save(buffer, kind, **options)
    return buffer.getvalue()


def upload(page: AppTest, name: str, data: bytes, mime: str = "image/png") -> AppTest:
    page.segmented_control(key="way").set_value("Upload").run()
    return page.file_uploader(key="upload").upload(name, data, mime).run()


def test_opens_with_an_invitation_and_the_gallery(page, serving):
    assert not page.exception
    assert "Choose a picture" in html(page)
    assert len([button for button in page.button if (button.key or "").startswith("sample-")]) == 20
    assert serving.predicts == []
