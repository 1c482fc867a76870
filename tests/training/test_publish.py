"""Publishing: all of a version or nothing, under the next integer."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from shipped import SHIPPED

from training import manifest
from training import publish as module
from training.publish import PublishError, main, publish, versions


@pytest.fixture
def source(tmp_path) -> Path:
    directory = tmp_path / "export"
    for name in ("saved_model.pb", "variables/variables.index", "assets/classes.txt", "assets.extra/model.keras"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(name.encode() * 20_000)
    manifest.write(directory, {"name": "fashion_mnist", "version": None})
    return directory


@pytest.fixture
def base(tmp_path) -> Path:
    return tmp_path / "models" / "fashion_mnist"


def files(directory: Path) -> set[str]:
    return {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()}


def test_numbers_follow_each_other(source, base):
    assert [publish(source, base) for _ in range(3)] == [1, 2, 3]
    assert versions(base) == [1, 2, 3]
    shutil.rmtree(base / "2")
    assert publish(source, base) == 4


def test_a_server_that_runs_as_another_user_reads_it_whatever_the_umask_was(source, base):
    for path in (source, *source.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    before = os.umask(0o077)
    try:
        publish(source, base)
    finally:
        os.umask(before)
    modes = {(path.is_dir(), path.stat().st_mode & 0o777) for path in (base, *base.rglob("*"))}
    assert modes == {(True, 0o755), (False, 0o644)}


def test_the_published_version_is_whole_and_knows_its_number(source, base):
    published = base / str(publish(source, base))
    assert files(published) == files(source)
    content = manifest.read(published)
    assert content["version"] == 1
    assert content["files"] == manifest.hashes(published) == manifest.hashes(source)
    assert [p.name for p in base.iterdir()] == ["1"]


def test_other_names_are_no_versions(source, base):
    for name in ("old", ".publishing-x", "7.bak"):
        (base / name).mkdir(parents=True)
    (base / "4").write_text("a file")
    assert versions(base) == []
    assert publish(source, base) == 5


def test_a_reader_never_sees_half_a_version(source, base):
    base.mkdir(parents=True)
    expected, stop, seen, halves = files(source), threading.Event(), set(), []

    def poll() -> None:
        while not stop.is_set():
            for version in versions(base):
                seen.add(version)
                if files(base / str(version)) != expected:
                    halves.append(version)

    with ThreadPoolExecutor(1) as reader:
        polling = reader.submit(poll)
        for _ in range(15):
            publish(source, base)
        stop.set()
        polling.result()
    assert not halves
    assert len(seen) > 1


def test_publishers_at_once_get_different_numbers(source, base):
    together = threading.Barrier(4)

    def one(_) -> list[int]:
        together.wait()
        return [publish(source, base) for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        numbers = sorted(number for mine in pool.map(one, range(4)) for number in mine)
    assert numbers == versions(base) == list(range(1, 17))
    assert all(manifest.read(base / str(n))["version"] == n for n in numbers)


@pytest.mark.parametrize("name", ["saved_model.pb", "assets.extra/model.keras"])
@pytest.mark.parametrize("change", ["changed", "missing"])
def test_a_changed_file_is_refused_by_name(source, base, name, change):
    if change == "changed":
        (source / name).write_bytes(b"other")
    else:
        (source / name).unlink()
    with pytest.raises(PublishError, match=name):
        publish(source, base)
    assert not base.exists()


def test_a_file_that_the_manifest_does_not_know_is_refused(source, base):
    (source / "assets/notes.txt").write_text("mine")
    with pytest.raises(PublishError, match="assets/notes.txt"):
        publish(source, base)


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_no_version_directory(source, base, content, capsys):
    path = source / manifest.FILE
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(PublishError, match=str(source)):
        publish(source, base)
    assert main([str(source)]) == 2
    assert str(source) in capsys.readouterr().err


@pytest.mark.parametrize("step", ["copytree", "fsync", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_full_or_unwritable_disk_leaves_nothing(source, base, monkeypatch, step, number, capsys):
    publish(source, base)

    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    owner = {"copytree": module.shutil, "fsync": module.os, "rename": Path}[step]
    monkeypatch.setattr(owner, step, fail)
    assert main([str(source), "--base-path", str(base)]) == 2
    assert os.strerror(number) in capsys.readouterr().err
    assert [p.name for p in base.iterdir()] == ["1"]


def test_dry_run_writes_nothing_and_says_what_would_happen(source, base, capsys):
    assert main([str(source), "--base-path", str(base), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"would publish {source}" in out
    assert str(base / "1") in out
    assert "versions there now: none" in out
    assert not base.exists()
    publish(source, base)
    main([str(source), "--base-path", str(base), "--dry-run"])
    assert str(base / "2") in capsys.readouterr().out
    assert versions(base) == [1]


def test_dry_run_refuses_what_publishing_would(source, base, capsys):
    (source / "saved_model.pb").write_bytes(b"other")
    assert main([str(source), "--base-path", str(base), "--dry-run"]) == 2
    assert "saved_model.pb" in capsys.readouterr().err


def test_the_manifests_name_is_where_it_goes(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "MODELS", tmp_path / "models")
    content = manifest.read(source)
    manifest.write(source, content | {"name": "shoes"})
    assert main([str(source)]) == 0
    assert json.loads((tmp_path / "models/shoes/1" / manifest.FILE).read_text())["name"] == "shoes"
    assert "published" in capsys.readouterr().out


def test_what_the_gate_said_stands_in_the_manifest(source, base):
    verdict = {"decision": "forced", "reason": "the old one has to go"}
    published = base / str(publish(source, base, gate=verdict))
    assert manifest.read(published)["gate"] == verdict
    assert "gate" not in manifest.read(source)


def test_the_gate_takes_no_data_of_other_classes(tmp_path, capsys):
    pets = tmp_path / "pets.npz"
    np.savez(
        pets,
        images=np.zeros((30, 28, 28), np.uint8) + np.arange(30, dtype=np.uint8)[:, None, None],
        labels=np.arange(30) % 3,
    )
    base_path = tmp_path / "models/fashion_mnist"
    publish(SHIPPED, base_path)
    export = tmp_path / "export"
    shutil.copytree(SHIPPED, export)
    (export / "assets/notes.txt").write_text("not the same graph")
    manifest.write(export, manifest.read(export))
    assert main([str(export), "--base-path", str(base_path), "--dataset", str(pets)]) == 2
    assert f"the dataset {pets} has 3 classes (0, 1, 2); expected the 10" in capsys.readouterr().err
    assert versions(base_path) == [1]


def test_the_gate_keeps_a_version_out(source, base, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise module.GateError("not published: worse")

    monkeypatch.setattr(module, "judge", refuse)
    assert main([str(source), "--base-path", str(base)]) == 2
    assert "not published: worse" in capsys.readouterr().err
    assert not base.exists()


KILLED_WHILE_COPYING = """
import os, sys, time
from pathlib import Path
from training.publish import publish
os.fsync = lambda descriptor: time.sleep(60)  # everything is copied, nothing is renamed
publish(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_what_a_killed_publisher_left_is_gone_after_the_next(source, base):
    publish(source, base)
    command = [sys.executable, "-c", KILLED_WHILE_COPYING, str(source), str(base)]
    process = subprocess.Popen(command, cwd=Path(module.__file__).parents[1])
    deadline = time.monotonic() + 120
    while not list(base.glob(".publishing-*/assets.extra/manifest.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert publish(source, base) == 2  # it is at work: its copy is left alone
    assert list(base.glob(".publishing-*"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert versions(base) == [1, 2]
    assert publish(source, base) == 3
    assert not list(base.glob(".publishing-*"))
