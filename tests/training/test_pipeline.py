"""What export and the whole pipeline refuse before they do anything."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from shipped import SHIPPED

from training import __main__ as module
from training import manifest
from training.__main__ import main
from training.export import export
from training.publish import publish
from training.settings import load_settings


@pytest.fixture
def run_dir(tmp_path):
    directory = tmp_path / "run"
    directory.mkdir()
    for name in ("settings.json", "model.keras"):
        (directory / name).write_text("{}")
    return directory


def test_a_run_is_published_once(run_dir, capsys):
    (run_dir / "published").write_text("models/fashion_mnist/7\n")
    assert main(["--preset", "smoke", "--run-dir", str(run_dir)]) == 2
    error = capsys.readouterr().err
    assert "is published already, as models/fashion_mnist/7; train anew with --fresh or into another --run-dir" in error


def test_an_export_replaces_nothing_but_an_export(run_dir, tmp_path):
    output = tmp_path / "documents"
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="documents exists and is no export; it is left as it is"):
        export(run_dir, output)
    assert [path.name for path in output.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("missing", ["settings.json", "model.keras"])
def test_an_unfinished_run_is_not_exported(run_dir, tmp_path, missing):
    (run_dir / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{missing} is missing: expected a finished run"):
        export(run_dir, tmp_path / "export")


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """The whole command but for what takes time: the version that ships stands for what is trained and exported."""
    run_dir, base_path = tmp_path / "run", tmp_path / "models/fashion_mnist"
    run_dir.mkdir()
    monkeypatch.setattr(module, "train", lambda settings, run_dir: None)
    monkeypatch.setattr(module, "evaluate_export", lambda export_dir, test: manifest.read(SHIPPED)["metrics"]["test"])

    def export_anew(*arguments, **options) -> None:
        target = run_dir / "export"
        shutil.copytree(SHIPPED, target, dirs_exist_ok=True)
        (target / "fingerprint.pb").write_bytes(os.urandom(16))  # as TensorFlow's, which differs every time
        manifest.write(target, manifest.read(target))

    monkeypatch.setattr(subprocess, "run", export_anew)
    monkeypatch.setattr(module, "run_from_arguments", lambda arguments: (load_settings("smoke"), run_dir))

    def run() -> int:
        return main(["--preset", "smoke", "--base-path", str(base_path)])

    return run, run_dir, base_path


def test_a_kill_between_publishing_and_its_note_publishes_nothing_twice(pipeline, monkeypatch, capsys):
    run, run_dir, base_path = pipeline

    def killed(*arguments, **options):
        publish(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "publish", killed)
    assert run() == 130
    monkeypatch.setattr(module, "publish", publish)
    assert run() == 0
    assert [path.name for path in base_path.iterdir()] == ["1"]
    assert (run_dir / "published").read_text() == f"{base_path / '1'}\n"
    assert not (run_dir / "publishing").exists()
    (run_dir / "published").unlink()  # a run of its own with the same outcome is a version of its own
    assert run() == 0
    assert sorted(path.name for path in base_path.iterdir()) == ["1", "2"]


def test_an_export_that_was_killed_says_so(pipeline, monkeypatch, capsys):
    run, _, _ = pipeline

    def killed(command, **options):
        raise subprocess.CalledProcessError(-9, command)

    monkeypatch.setattr(subprocess, "run", killed)
    assert run() == 1
    assert "the export was ended by SIGKILL" in capsys.readouterr().err
