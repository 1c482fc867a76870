"""Versions on disk: found by their names, held against their manifests, removed oldest first."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from serving import version_files
from serving.release_errors import NoManifest, NoVersion


def make(folder: Path, version: int | str) -> Path:
    made = folder / str(version)
    (made / "assets.extra").mkdir(parents=True)
    files = {"saved_model.pb": b"graph", "assets.extra/model.keras": b"weights"}
    for name, content in files.items():
        (made / name).write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    (made / version_files.MANIFEST).write_text(json.dumps({"files": hashes}))
    return made


def states(version_dir: Path) -> dict[str, str]:
    return {one.file: one.state for one in version_files.check(version_dir)}


def test_versions_are_folders_with_a_number_and_a_graph(tmp_path):
    for name in (10, 9, "007", "latest", ".publishing-x"):
        make(tmp_path, name)
    (tmp_path / "11").mkdir()
    (tmp_path / "12").touch()
    assert version_files.numbers(tmp_path) == [7, 9, 10]
    assert version_files.numbers(tmp_path / "none") == []
    assert version_files.version_folder(tmp_path, 7) == tmp_path / "007"
    with pytest.raises(NoVersion, match="no version 8 .* there are: 7, 9, 10"):
        version_files.version_folder(tmp_path, 8)


def test_every_file_has_its_state(tmp_path):
    made = make(tmp_path, 1)
    assert set(states(made).values()) == {version_files.OK}
    (made / "saved_model.pb").write_bytes(b"Graph")
    (made / "assets.extra/model.keras").unlink()
    (made / "more.txt").touch()
    assert states(made) == {
        "assets.extra/model.keras": "missing",
        "more.txt": "not in the manifest",
        "saved_model.pb": "changed",
    }


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"files": 1}'])
def test_without_a_manifest_there_is_nothing_to_compare(tmp_path, text):
    made = make(tmp_path, 1)
    (made / version_files.MANIFEST).unlink()
    if text is not None:
        (made / version_files.MANIFEST).write_text(text)
    with pytest.raises(NoManifest, match="manifest.json"):
        version_files.check(made)


@pytest.mark.parametrize(
    ("keep", "spared", "gone"), [(1, [], [2, 3]), (2, [], [2]), (9, [], []), (1, [2, 10], [3]), (1, [2, 3], [])]
)
def test_the_oldest_go_but_none_that_is_spared(tmp_path, keep, spared, gone):
    for version in (2, 3, 10):
        make(tmp_path, version)
    assert version_files.remove_old(tmp_path, keep, spared) == gone
    assert version_files.numbers(tmp_path) == [version for version in (2, 3, 10) if version not in gone]
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_run_left_goes_too(tmp_path):
    make(tmp_path, 5)
    make(tmp_path, ".removing-4")
    assert version_files.remove_old(tmp_path, 1, []) == []
    assert [path.name for path in tmp_path.iterdir()] == ["5"]
