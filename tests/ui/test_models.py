"""Which models there are, by the model server's config file, and what the pages do when there are several."""

from __future__ import annotations

from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from ui import models, service
from ui.models import ServedModel
from ui.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
NEW = """new_field { deep: <a: 1.5 b: 'x' "y"> }"""  # of a later TensorFlow Serving
TWO = (
    """# comment { "
model_config_list: {
  config { name: "clothing" base_path: "/models/clothing" model_platform: "tensorflow"
           model_version_policy { specific { versions: [1, 2] } } version_labels: { key: 'stable', value: 1 } }
  config { name: "fashion_mnist" base_path: "/models/fashion_mnist" """
    + NEW
    + """ }
}
"""
)
CLOTHING, FASHION = ServedModel("clothing", frozenset({"stable"})), ServedModel("fashion_mnist")


@pytest.fixture
def config(environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config file of two models, which the page's settings name."""
    path = tmp_path / "models.config"
    path.write_text(TWO)
    monkeypatch.setenv("MODEL_CONFIG_FILE", str(path))
    return path


def opened(script: Path | None = None) -> AppTest:
    return AppTest.from_file(str(script or ROOT / "ui/app.py"), default_timeout=60).run()


def html(page: AppTest) -> str:
    return "\n".join(element.proto.body for element in page.html if "<style>" not in element.proto.body)


def gallery(page: AppTest) -> list[str]:
    return [button.label for button in page.button if (button.key or "").startswith("sample-")]


def test_the_config_is_read_with_everything_else_in_it():
    assert models.parse(TWO) == (CLOTHING, FASHION)
    assert models.parse("") == ()
    shipped = models.parse((ROOT / "serving/config/models.config").read_text())
    assert "fashion_mnist" in {model.name for model in shipped}
    with pytest.raises(ValueError, match="expected a text proto ModelServerConfig"):
        models.parse("model_config_list {")


def test_it_says_what_the_model_servers_own_reader_says():
    from google.protobuf import text_format
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    config = text_format.Parse(TWO.replace(NEW, ""), ModelServerConfig()).model_config_list.config
    assert models.parse(TWO) == tuple(ServedModel(model.name, frozenset(model.version_labels)) for model in config)


@pytest.mark.parametrize(
    ("text", "default", "names"),
    [
        (TWO, "fashion_mnist", ["fashion_mnist", "clothing"]),
        (TWO, "clothing", ["clothing", "fashion_mnist"]),
        (TWO, "shoes", ["clothing", "fashion_mnist"]),
        ("{", "shoes", ["shoes"]),
        (None, "shoes", ["shoes"]),
    ],
)
def test_the_default_comes_first_and_is_there_whatever_the_file_says(tmp_path, text, default, names):
    st.cache_data.clear()
    path = tmp_path / "models.config"
    if text is not None:
        path.write_text(text)
    assert [model.name for model in models.served(str(path), default)] == names
    assert models.served(None, default) == (ServedModel(default),)


def test_with_one_model_there_is_no_choice(page):
    assert [box.label for box in page.selectbox] == []


def test_another_model_is_chosen_by_name_and_asked_by_its_stable_version(config, serving):
    serving.labels = {"stable": 1}
    page = opened()
    assert page.selectbox(key="model").options == ["fashion_mnist", "clothing"]
    page.selectbox(key="model").set_value("clothing").run()
    page.button(key="sample-0").click().run()
    assert not page.exception
    assert not page.warning
    assert "Answered by <b>clothing</b>" in html(page)
    assert "/v1/models/clothing/labels/stable/metadata" in serving.asked
    page.selectbox(key="model").set_value("fashion_mnist").run()
    assert "Answered by <b>fashion_mnist</b>" in html(page)


def test_a_label_that_the_server_does_not_know_yet_is_the_latest(config, serving):
    page = opened()
    page.selectbox(key="model").set_value("clothing").run()
    page.button(key="sample-0").click().run()
    assert not page.error
    assert "<b>clothing</b>, <b>version 1</b>" in html(page)


def test_a_model_of_other_classes_gets_files_and_the_camera(config, serving):
    serving.classes[0] = "hat"
    page = opened()
    assert len(gallery(page)) == 20, "it is Fashion-MNIST's, whatever names its model gives the classes"
    page.selectbox(key="model").set_value("clothing").run()
    assert gallery(page) == []
    assert page.file_uploader
    way = page.segmented_control(key="way-file")
    assert (way.options, way.value) == (["File", "Camera"], "File")
    way.set_value("Camera").run()
    assert page.camera_input
    assert not page.exception
    page.selectbox(key="model").set_value("fashion_mnist").run()
    assert len(gallery(page)) == 20
    assert not page.camera_input


def test_a_model_that_left_the_config_cannot_stay_chosen(config, serving):
    page = opened()
    page.selectbox(key="model").set_value("clothing").run()
    config.write_text(TWO.replace('"clothing"', '"shoes"'))
    st.cache_data.clear()
    page.run()
    assert not page.exception
    assert page.selectbox(key="model").value == "fashion_mnist"


def test_how_to_call_it_names_model_and_label(config, serving):
    serving.labels = {"stable": 1}

    def run_page() -> None:
        from ui.pages import model

        model.page()

    page = AppTest.from_function(run_page, default_timeout=60).run()
    page.selectbox(key="model").set_value("clothing").run()
    assert not page.exception
    curl, rest, grpc = (code.value for code in page.code)
    assert "/v1/models/clothing/labels/stable:predict" in curl
    assert all('model="clothing", label="stable"' in snippet for snippet in (rest, grpc))
    assert "<b>clothing</b> version" in html(page)


def test_a_client_for_each_model_and_label(serving):
    settings = Settings(serving.url, None, None, "a")
    assert service.client(settings) is service.client(Settings(serving.url, None, None, "a"))
    assert service.client(settings) is not service.client(Settings(serving.url, None, None, "b"))
