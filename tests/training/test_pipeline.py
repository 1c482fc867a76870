"""What export and the whole pipeline refuse before they do anything."""

from __future__ import annotations

import pytest

from training.__main__ import main
from training.export import export


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
