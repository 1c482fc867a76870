"""The main page through Streamlit's own test driver, before a real HTTP server."""

import io
import re

import numpy as np
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from serving.client import overlay
from serving.client.colormaps import diverging
from ui import service
from ui.pages.look import COARSE, FINE

BOOT = 0  # test image 0 is an ankle boot
BOOT_ID = 9


def html(page: AppTest) -> str:
    """Everything the page says in HTML, style sheets left out."""
    return "\n".join(element.proto.body for element in page.html if "<style>" not in element.proto.body)


def captions(page: AppTest) -> list[str]:
    return [caption for image in page.image for caption in image.captions]


def choose(page: AppTest, test_index: int = BOOT) -> AppTest:
    return page.button(key=f"sample-{test_index}").click().run()


def upload(page: AppTest, name: str, data: bytes, mime: str = "image/png") -> AppTest:
    return page.file_uploader[0].upload(name, data, mime).run()


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 60)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "teal").save(buffer, kind)
    return buffer.getvalue()


def test_opens_with_an_invitation_and_the_gallery_and_asks_nothing(page, serving):
    assert not page.exception
    assert "Choose a picture" in html(page)
    labels = [button.label for button in page.button if (button.key or "").startswith("sample-")]
    assert len(labels) == 20
    assert len(set(labels)) == 20, "two buttons of one name cannot be told apart by ear"
    assert labels[0] == "T-shirt/top *(test image 19)*"
    assert page.file_uploader, "a dropped file needs a place that takes it"
    assert serving.predicts == []


def test_a_gallery_picture_is_named_explained_and_judged_right(page, serving):
    serving.winner = BOOT_ID
    choose(page)
    text = html(page)
    assert not page.exception
    assert '<h2 class="vt-name">Ankle boot</h2>' in text
    assert "Right: the true label is Ankle boot" in text
    assert "<b>version 1</b>" in text
    assert captions(page) == ["The picture", "Evidence for Ankle boot", "What the model sees, 28 x 28 pixels"]
    assert text.count('<li><span class="vt-label">') == 5


def test_a_wrong_prediction_is_said(page, serving):
    serving.winner = 8
    choose(page)
    assert "Wrong: the true label is Ankle boot" in html(page)
    assert "Right" not in html(page)


def test_a_label_the_model_does_not_know_is_not_called_wrong(page, serving):
    serving.classes[BOOT_ID] = "boot"
    choose(page)
    assert "does not know that class" in html(page)
    assert "Wrong" not in html(page)


def test_the_probabilities_shown_are_those_of_the_server(page, serving):
    choose(page)
    page.segmented_control(key="top").set_value("All").run()
    expected = sorted(serving.probabilities(serving.sent[0]), reverse=True)
    shown = re.findall(r'<span class="vt-number">(.*?)</span>', html(page))
    assert shown == ["< 0.1 %" if value < 0.001 else f"{100 * value:.1f} %" for value in expected]


def test_sliders_and_classes_ask_nothing_more(page, serving):
    serving.winner = BOOT_ID
    choose(page)
    asked = len(serving.predicts)
    page.slider(key="opacity").set_value(10).run()
    page.segmented_control(key="top").set_value("Top 3").run()
    page.segmented_control(key="map").set_value(COARSE).run()
    page.selectbox[0].set_value(3).run()
    page.selectbox[1].set_value(5).run()
    assert not page.exception
    assert len(serving.predicts) == asked


def test_a_fine_map_is_asked_for_once_a_class(page, serving):
    serving.winner = BOOT_ID
    choose(page)
    asked = len(serving.predicts)
    for _ in range(2):
        page.selectbox[0].set_value(3).run()
        page.selectbox[0].set_value(BOOT_ID).run()
    page.selectbox[1].set_value(5).run()
    assert not page.exception
    assert serving.predicts[asked:] == ["explain_fine"] * 2


def test_the_map_is_fine_unless_grad_cam_is_asked_for(page, serving):
    serving.winner = BOOT_ID
    choose(page)
    control = page.segmented_control(key="map")
    assert control.value == FINE
    assert control.options == ["Fine, 6 x 6", "Grad-CAM, 3 x 3"]
    assert html(page).count("<td") == 36
    assert html(page).count("+5.00</td>") == 1
    fine = page.image[1].value
    control.set_value(COARSE).run()
    assert html(page).count("<td") == 9
    assert page.image[1].value != fine


def test_a_model_without_fine_maps_shows_grad_cam(page, serving):
    serving.without = {"explain_fine"}
    serving.winner = BOOT_ID
    choose(page)
    assert "map" not in [control.key for control in page.segmented_control]
    assert captions(page) == ["The picture", "Evidence for Ankle boot", "What the model sees, 28 x 28 pixels"]
    assert html(page).count("<td") == 9


def test_a_fine_map_of_a_version_that_was_replaced_is_that_of_the_new_one(page, serving):
    serving.winner = BOOT_ID
    choose(page)
    serving.version = 2
    page.selectbox[0].set_value(3).run()
    assert not page.exception
    assert not page.error
    assert "<b>version 2</b>" in html(page)
    page.selectbox[0].set_value(3).run()
    assert serving.predicts[-1] == "explain_fine"
    assert "No positive evidence for this class" in page.info[0].value


def test_a_fine_map_that_cannot_be_had_is_said_and_the_answer_stays(page, serving):
    serving.winner = BOOT_ID
    choose(page)
    serving.mode = 503
    page.selectbox[0].set_value(3).run()
    assert page.error
    assert '<h2 class="vt-name">Ankle boot</h2>' in html(page)
    serving.mode = "good"
    page.button(key="retry").click().run()
    assert not page.error


def test_the_opacity_changes_the_drawing_and_nothing_else(page):
    choose(page)
    before = [image.value for image in page.image]
    page.slider(key="opacity").set_value(20).run()
    after = [image.value for image in page.image]
    assert before[1] != after[1]
    assert [before[0], before[2]] == [after[0], after[2]]


def test_the_predicted_class_is_explained_first_and_any_other_can_be(page, serving):
    serving.winner = BOOT_ID
    choose(page)
    explained = page.selectbox[0]
    assert explained.value == BOOT_ID
    assert explained.options[0].startswith("Ankle boot · ")
    assert len(explained.options) == 10
    assert page.selectbox[1].options[0] == "no other class"


def test_an_empty_map_is_said_in_words(page, serving):
    serving.winner = BOOT_ID
    choose(page)
    assert not page.info
    page.selectbox[0].set_value(2).run()
    assert "No positive evidence for this class" in page.info[0].value
    assert captions(page) == ["The picture", "What the model sees, 28 x 28 pixels"]


def test_contrast_with_a_second_class(page, serving):
    serving.winner = BOOT_ID
    choose(page)
    page.segmented_control(key="map").set_value(COARSE).run()
    page.selectbox[1].set_value(7).run()
    assert "Evidence for Ankle boot rather than Sneaker" in captions(page)
    # -2..6 for the boot, -1 everywhere for the others: the raw numbers are the difference.
    assert "+7.00</td>" in html(page)
    assert "-1.00</td>" in html(page)
    strongest = " ".join(map(str, diverging(overlay.PAINTED_RANGE).tolist()))
    assert f"rgb({strongest}))" in html(page), "the legend ends in the strongest colour of the drawing"


def test_the_raw_grid_shows_the_signed_values(page, serving):
    serving.winner = BOOT_ID
    choose(page)
    page.segmented_control(key="map").set_value(COARSE).run()
    table = next(e.proto.body for e in page.html if "vt-grid" in e.proto.body and "<style>" not in e.proto.body)
    assert table.count("<td") == 9
    assert table.count("<tr>") == 3
    assert "-2.00</td>" in table
    assert "+6.00</td>" in table


def test_the_same_picture_again_comes_from_the_cache(page, serving):
    choose(page, 0)
    asked = len(serving.predicts)
    choose(page, 1)
    assert len(serving.predicts) > asked
    assert "from memory" not in html(page)
    asked = len(serving.predicts)
    choose(page, 0)
    assert len(serving.predicts) == asked
    assert "shown again from memory" in html(page)


def test_the_chosen_picture_is_said_to_be_chosen(page):
    choose(page, 1)
    choose(page, 0)
    assert [button.label for button in page.button if "chosen" in button.label] == [
        "Ankle boot *(test image 0, chosen)*"
    ]


def test_a_new_version_is_asked_and_named(page, serving):
    choose(page)
    serving.version = 2
    service.current_version.clear()
    choose(page)
    assert "<b>version 2</b>" in html(page)


def test_a_version_replaced_behind_the_cache_does_not_fail(page, serving):
    choose(page, 0)
    serving.version = 2  # the page still remembers version 1
    choose(page, 1)
    assert not page.error
    assert "<b>version 2</b>" in html(page)


def test_an_uploaded_photo_has_no_verdict(page, serving):
    data = picture()
    upload(page, "shirt.png", data)
    assert not page.exception
    assert data in serving.sent
    assert 'class="vt-name"' in html(page)
    assert "true label" not in html(page)


def test_taking_the_upload_away_brings_the_invitation_back(page):
    upload(page, "shirt.png", picture())
    page.file_uploader[0].set_value(None).run()
    assert "Choose a picture" in html(page)


def test_a_gallery_picture_after_an_upload_empties_the_uploader(page):
    upload(page, "shirt.png", picture())
    choose(page)
    assert page.file_uploader[0].value is None
    assert "true label" in html(page)


def test_an_upload_puts_the_camera_away(page):
    page.segmented_control(key="way").set_value("Camera").run()
    upload(page, "shirt.png", picture())
    assert not page.camera_input
    assert not page.warning
    assert 'class="vt-name"' in html(page)


def test_a_photo_of_the_camera(page, serving):
    page.segmented_control(key="way").set_value("Camera").run()
    page.camera_input(key="camera").upload("shot.jpg", picture("JPEG"), "image/jpeg").run()
    assert not page.exception
    assert 'class="vt-name"' in html(page)


def test_the_camera_is_not_asked_for_before_it_is_wanted(page):
    assert not page.camera_input


def test_a_webp_is_sent_as_png_and_the_page_says_so(page, serving):
    upload(page, "shirt.webp", picture("WEBP"), "image/webp")
    assert "a PNG copy of 40 x 60 pixels was sent" in page.info[0].value
    assert serving.sent[0].startswith(b"\x89PNG")


def test_a_model_that_does_not_show_what_it_sees_still_explains(page, serving):
    serving.without = {"preprocess"}
    serving.winner = BOOT_ID
    choose(page)
    assert captions(page) == ["The picture", "Evidence for Ankle boot"]


def test_a_file_that_is_no_picture(page, serving):
    upload(page, "not[a](http://x)*picture*.png", b"hello, I am text")
    assert not page.exception
    assert "is not a picture this page can read" in page.error[0].value
    assert "\\*picture\\*" in page.error[0].value, "a file's name must not be read as Markdown"
    assert serving.predicts == []
    assert not choose(page).error


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (401, "The server refuses this page's password"),
        (403, "This page is not allowed to ask the model"),
        (404, "The model is not being served"),
        (400, "The model could not read this picture"),
        (413, "This picture is too large for the server"),
        (429, "The server is busy"),
        (500, "The server failed at this picture"),
        (503, "The model server is away"),
        (504, "The answer took too long"),
        ("garbage", "Something other than the model server answers"),
    ],
)
def test_failures_in_words_and_recovery(page, serving, mode, words):
    serving.mode = mode
    choose(page)
    assert not page.exception
    assert page.error[0].value.replace("\\", "").startswith(f"**{words}**")
    assert "Traceback" not in html(page) + str([code.value for code in page.code])

    serving.mode = "good"
    page.button(key="retry").click().run()
    assert not page.error
    assert 'class="vt-name"' in html(page)


def test_no_server_at_all_and_recovery(page, serving):
    serving.stop()
    choose(page)
    assert not page.exception
    assert "The model server is away" in page.error[0].value
    assert 'class="vt-name"' not in html(page)

    serving.start()
    page.run()
    assert not page.error
    assert 'class="vt-name"' in html(page)


def test_a_slow_server(page, serving, monkeypatch):
    monkeypatch.setattr(service, "TIMEOUT_S", 0.2)
    st.cache_resource.clear()
    serving.mode = "slow"
    choose(page)
    assert "The answer took too long" in page.error[0].value


def test_wrong_settings_are_said(serving, page, monkeypatch):
    monkeypatch.setenv("SERVING_URL", "no address")
    choose(page)
    assert not page.exception
    assert "This page is not set up correctly" in page.error[0].value.replace("\\", "")


def test_a_user_without_a_password_is_said_and_nothing_leaks(serving, page, monkeypatch):
    monkeypatch.setenv("GATEWAY_PASSWORD", "hunter2hunter2")
    choose(page)
    assert "This page is not set up correctly" in page.error[0].value.replace("\\", "")
    assert "hunter2" not in html(page) + "".join(code.value for code in page.code)


def test_fake_maps_are_what_these_tests_assume(serving):
    outputs = serving.outputs("explain", [picture()])
    cams = np.array(outputs["cams"])[0]
    assert cams.max(axis=(1, 2)).tolist().count(6.0) == 1
    assert (cams.max(axis=(1, 2)) <= 0).sum() == 9
