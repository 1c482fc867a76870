"""The model config file: read, rewritten in one step, and made fit for a model server on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving import models_config
from serving.release_errors import ConfigError

TEXT = """# what is served
#   and why

model_config_list {
  config { name: "a" base_path: "/models/a" model_platform: "tensorflow" REST }
  config { name: "b" base_path: "/models/b" model_platform: "tensorflow" }
}
"""
POLICY = "model_version_policy { specific { versions: 1 versions: 2 } } "
LABELS = 'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }'


@pytest.fixture
def models(tmp_path) -> Path:
    return tmp_path / "models"


def version(models: Path, name: str, *numbers: int) -> None:
    for number in numbers:
        (models / name / str(number)).mkdir(parents=True)
        (models / name / str(number) / "saved_model.pb").touch()


def written(tmp_path: Path, rest: str = "") -> Path:
    path = tmp_path / "models.config"
    path.write_text(TEXT.replace("REST", rest))
    return path


def test_a_rewritten_file_keeps_its_head_and_says_the_same(tmp_path):
    path = written(tmp_path, POLICY + LABELS)
    config = models_config.read(path)
    models_config.write(path, config)
    assert path.read_text().startswith("# what is served\n#   and why\n\nmodel_config_list {")
    assert models_config.read(path) == config
    assert path.stat().st_mode & 0o777 == 0o644, "the container's server is another user"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    path = written(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        models_config.write(path, models_config.read(path))
    assert path.read_text() == TEXT.replace("REST", "")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("model_config_list { config { nam: 'a' } }", "nam"),
        ("custom_model_config {}", "got a custom_model_config"),
    ],
)
def test_what_is_no_config_is_refused_by_name(tmp_path, text, words):
    path = tmp_path / "models.config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=words) as refused:
        models_config.read(path)
    assert "models.config" in str(refused.value)


def test_serving_certain_versions_replaces_any_policy(tmp_path):
    config = models_config.read(written(tmp_path, "model_version_policy { all {} }"))
    model = models_config.find(config, "a")
    for versions in ([3, 1, 1], [2]):
        models_config.serve(model, versions)
        assert list(model.model_version_policy.specific.versions) == sorted(set(versions))
    assert models_config.find(config, "c") is None


def local(tmp_path: Path, models: Path, rest: str = "", **base_paths: Path):
    return models_config.localised(models_config.read(written(tmp_path, rest)), base_paths, models)


def test_here_the_folders_are_those_that_are_here(tmp_path, models):
    version(models, "a", 1, 2)
    version(tmp_path / "elsewhere", "b", 7)
    version(models, "new", 1)
    config, notes = local(
        tmp_path, models, POLICY + LABELS, b=tmp_path / "elsewhere/b", new=models / "new", empty=models / "empty"
    )
    found = {model.name: model.base_path for model in config.model_config_list.config}
    assert found == {"a": str(models / "a"), "b": str(tmp_path / "elsewhere/b"), "new": str(models / "new")}
    assert dict(models_config.find(config, "a").version_labels) == {"stable": 1, "canary": 2}
    assert models_config.find(config, "new").model_version_policy.latest.num_versions == 1
    assert notes == []


def test_a_model_without_a_version_would_keep_the_server_from_starting(tmp_path, models):
    version(models, "a", 1)
    config, notes = local(tmp_path, models)
    assert [model.name for model in config.model_config_list.config] == ["a"]
    assert notes == [f"b is not served: no version in {models / 'b'}"]


def test_a_label_whose_version_is_gone(tmp_path, models):
    version(models, "a", 2)
    version(models, "b", 1)
    config, (note,) = local(tmp_path, models, POLICY + LABELS)
    model = models_config.find(config, "a")
    assert dict(model.version_labels) == {"canary": 2}
    assert list(model.model_version_policy.specific.versions) == [2]
    assert "version 1, labelled stable" in note
    assert "promote N --model a --label stable" in note


def test_where_no_version_of_the_policy_is_there_the_newest_is_served(tmp_path, models):
    version(models, "a", 3, 12)
    version(models, "b", 1)
    config, notes = local(tmp_path, models, POLICY)
    assert models_config.find(config, "a").model_version_policy.latest.num_versions == 1
    assert len(notes) == 1
    assert "1, 2, not one is" in notes[0]
    assert "the newest there, 12, is served" in notes[0]
