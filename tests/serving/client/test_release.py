"""Promotion and rollback before a server that does what it should, or does not: what is refused changes nothing."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from serving import models_config, promotion, promotion_log, unfinished, version_files
from serving.client import ServerUnavailable
from serving.promotion import Move
from serving.release_errors import ConfigError, NoVersion, PromotionError
from serving.site import Site

MODEL = "fashion_mnist"
CONFIG = """# head
model_config_list { config { name: "fashion_mnist" base_path: "/models/fashion_mnist" model_platform: "tensorflow" } }
"""


def publish(site: Site, version: int, names: tuple[str, ...], **manifest: object) -> Path:
    folder = site.folder(MODEL) / str(version)
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    files = {"saved_model.pb": hashlib.sha256(b"graph").hexdigest()}
    content = {"name": MODEL, "version": version, "classes": list(names), "files": files} | manifest
    (folder / version_files.MANIFEST).write_text(json.dumps(content))
    return folder


@pytest.fixture
def site(tmp_path, fake) -> Site:
    """Versions 1 and 2 on disk; the server has loaded both and knows the labels that a test gives it."""
    made = Site(tmp_path / "config", tmp_path / "models")
    made.config.mkdir()
    made.truth.write_text(CONFIG)
    for version in (1, 2):
        publish(made, version, fake.names)
    fake.versions = {1: "AVAILABLE", 2: "AVAILABLE"}
    return made


@pytest.fixture
def promote(site, fake):
    """Promotes; a server that follows is one whose labels are already there. Gives the lines it says."""

    def run(version: int, label: str = "stable", command: str = "", **options: object) -> list[str]:
        said: list[str] = []
        move = Move(
            MODEL, version, label, command or f"promote {version}", wait_s=options.pop("wait_s", 20.0), **options
        )
        with site.locked():
            promotion.promote(site, move, fake.client, said.append)
        return said

    return run


def entry(site: Site):
    return models_config.find(models_config.read(site.truth), MODEL)


def test_a_promoted_version_is_labelled_logged_and_alone_in_service(site, fake, promote):
    fake.versions = {2: "AVAILABLE"}
    fake.labels = {"stable": 2}
    said = promote(2)
    assert said[-1] == f"version 2 of {MODEL} is stable"
    assert dict(entry(site).version_labels) == {"stable": 2}
    assert list(entry(site).model_version_policy.specific.versions) == [2]
    assert [(one.source, one.target, one.command) for one in promotion_log.read(site.log)] == [(None, 2, "promote 2")]
    assert promote(2) == [f"version 2 of {MODEL} is stable already"]
    assert len(promotion_log.read(site.log)) == 1
    assert site.truth.read_text().startswith("# head\n")


def test_a_canary_stays_beside_stable_and_ends_with_its_promotion(site, fake, promote):
    fake.labels = {"stable": 1, "canary": 2}
    promote(1, wait_s=0.5)
    said = promote(2, "canary")
    assert "requests without a label go to version 2" in said[-1]
    assert list(entry(site).model_version_policy.specific.versions) == [1, 2]
    with pytest.raises(PromotionError, match="version 1 is stable; a canary is another"):
        promote(1, "canary")
    fake.labels = {"stable": 2}
    said = promote(2, wait_s=0.5)
    assert "version 2 gets the label canary too: no other version has it any more" in said
    assert dict(entry(site).version_labels) == {"stable": 2, "canary": 2}  # who asks for it is still answered


def test_a_canary_that_is_over_follows_stable(site, fake, promote):
    publish(site, 3, fake.names)
    for version in (1, 2, 3):
        fake.versions[version] = "AVAILABLE"
        fake.labels = {"stable": version}
        promote(version, wait_s=0.5)
        if version == 1:
            fake.labels = {"stable": 1, "canary": 2}
            promote(2, "canary")
    assert dict(entry(site).version_labels) == {"stable": 3, "canary": 3}
    fake.labels = {"stable": 2, "canary": 2}
    promote(2, command="rollback", wait_s=0.5)
    assert dict(entry(site).version_labels) == {"stable": 2, "canary": 2}


def test_a_canary_can_be_ended(site, fake, promote):
    fake.labels = {"stable": 1, "canary": 2}
    with pytest.raises(PromotionError, match="is stable yet, so there is nothing to roll back"):
        promotion.previous(site, MODEL, "canary")
    promote(1, wait_s=0.5)
    with pytest.raises(PromotionError, match="has no canary beside version 1, which is stable"):
        promotion.previous(site, MODEL, "canary")
    promote(2, "canary")
    assert promotion.previous(site, MODEL, "canary") == 1
    fake.labels = {"stable": 1, "canary": 1}
    promote(1, "canary", command="rollback --label canary", wait_s=0.5)
    assert dict(entry(site).version_labels) == {"stable": 1, "canary": 1}
    assert list(entry(site).model_version_policy.specific.versions) == [1]


def test_a_canary_where_nothing_is_stable_leaves_what_is_in_service(site, fake, promote):
    fake.labels = {"canary": 1}
    promote(1, "canary")
    fake.versions = {1: "AVAILABLE", 2: "LOADING"}  # after a restart, say
    promote(1, "canary")
    assert list(entry(site).model_version_policy.specific.versions) == [1, 2]


def test_a_model_the_config_lacks_is_added(site, fake, promote):
    site.truth.write_text("# head\n")
    fake.versions, fake.labels = {2: "AVAILABLE"}, {"stable": 2}
    promote(2)
    assert entry(site).base_path == f"/models/{MODEL}"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda site, fake: fake.versions.pop(2), "waited 0.5 s for version 2 .* to be loaded"),
        (lambda site, fake: fake.labels.clear(), "waited 0.5 s for the label stable .* to stand for version 2"),
        (
            lambda site, fake: publish_other_classes(site),
            "expected the classes of its manifest, Hat; it answers with Ank",
        ),
        (lambda site, fake: (site.folder(MODEL) / "2/saved_model.pb").write_bytes(b"x"), r"saved_model.pb \(changed\)"),
        (lambda site, fake: (site.folder(MODEL) / "2/more").touch(), r"damaged: more \(not in the manifest\)"),
        (lambda site, fake: (site.folder(MODEL) / "2" / version_files.MANIFEST).unlink(), "takes it all the same"),
        (lambda site, fake: copy_by_hand(site), "expected the manifest of version 2 .* got that of version 1 of"),
        (lambda site, fake: site.log.mkdir(), "promotions.jsonl"),
    ],
)
def test_what_is_refused_changes_nothing(site, fake, promote, spoil, words):
    fake.labels = {"stable": 2}
    spoil(site, fake)
    with pytest.raises((PromotionError, IsADirectoryError), match=words):
        promote(2, wait_s=0.5)
    assert site.truth.read_text() == CONFIG
    assert not site.log.is_file()


def publish_other_classes(site: Site) -> None:
    shutil.rmtree(site.folder(MODEL) / "2")
    publish(site, 2, ("Hat",))


def copy_by_hand(site: Site) -> None:
    shutil.copy(site.folder(MODEL) / "1" / version_files.MANIFEST, site.folder(MODEL) / "2" / version_files.MANIFEST)


@pytest.mark.parametrize("missing", [True, False])
def test_force_takes_what_nothing_vouches_for(site, fake, promote, missing):
    fake.versions, fake.labels = {2: "AVAILABLE"}, {"stable": 2}
    if missing:
        (site.folder(MODEL) / "2" / version_files.MANIFEST).unlink()
    else:
        copy_by_hand(site)
    promote(2, trusted=True)
    assert dict(entry(site).version_labels) == {"stable": 2}


def test_a_version_that_is_not_there(promote):
    with pytest.raises(NoVersion, match="no version 9 .* there are: 1, 2"):
        promote(9)


def test_a_server_that_is_away_while_it_is_asked_brings_the_config_back(site, fake, promote, play):
    fake.labels = {"stable": 2}
    fake.faults.extend([play.status(503)] * 10)
    with pytest.raises(ServerUnavailable):
        promote(2)
    assert site.truth.read_text() == CONFIG


def test_rollback_goes_back_by_the_log_then_by_number(site, fake, promote):
    publish(site, 3, fake.names)
    with pytest.raises(PromotionError, match="is stable yet, so there is nothing to roll back"):
        promotion.previous(site, MODEL)
    for version, command in ((3, ""), (1, ""), (2, ""), (1, "rollback")):
        fake.versions, fake.labels = {version: "AVAILABLE"}, {"stable": version}
        promote(version, command=command)
    assert promotion.previous(site, MODEL) == 3
    shutil.rmtree(site.folder(MODEL) / "3")
    message = rf"version 1 of {MODEL} is stable and stays: what was stable before it \(3\) is not in .* there: 2;"
    with pytest.raises(PromotionError, match=message):
        promotion.previous(site, MODEL)
    fake.versions, fake.labels = {2: "AVAILABLE"}, {"stable": 2}
    promote(2)
    site.log.unlink()
    assert promotion.previous(site, MODEL) == 1
    shutil.rmtree(site.folder(MODEL) / "1")
    with pytest.raises(PromotionError, match=r"an earlier one is not in .*Other versions there: none"):
        promotion.previous(site, MODEL)


class Killed(BaseException):
    """Where a process would be no more."""


@pytest.fixture
def kill(site, promote, monkeypatch):
    """Promotes, and is killed right after the config (or what is under way) was written so many times."""

    def run(version: int, writes: int, label: str = "stable", command: str = "") -> None:
        left, replace = writes, models_config.replace

        def counted(path: Path, text: str) -> None:
            nonlocal left
            replace(path, text)
            left -= 1
            if not left:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(models_config, "replace", counted)
            patch.setattr(promotion, "_bring_back", lambda *_: None)
            with pytest.raises(Killed):
                promote(version, label, command=command)
        assert site.unfinished.exists()

    return run


def recover(site: Site) -> tuple[promotion_log.Entry | None, list[str]]:
    said: list[str] = []
    with site.locked():
        done = unfinished.recover(site, said.append)
    assert not site.unfinished.exists()
    return done, said


def versions(site: Site) -> list[int]:
    return list(entry(site).model_version_policy.specific.versions)


def test_nothing_is_under_way_after_a_promotion(site, fake, promote):
    fake.labels = {"stable": 2}
    promote(2, wait_s=0.5)
    assert recover(site) == (None, [])
    with pytest.raises(PromotionError):
        promote(1, wait_s=0.5)
    assert recover(site) == (None, [])


def test_a_first_promotion_that_is_killed_leaves_the_config_as_it_was(site, fake, kill):
    site.truth.write_text("# head\n")
    fake.labels = {"stable": 2}
    kill(2, writes=2)
    assert entry(site) is not None
    recover(site)
    assert entry(site) is None


@pytest.mark.parametrize("writes", [1, 2, 3])
def test_a_promotion_killed_before_the_label_is_seen_to_have_moved_is_taken_back(site, fake, promote, kill, writes):
    """Also where the next one fails: the version that was killed is not left in service by it."""
    publish(site, 3, fake.names)
    fake.versions, fake.labels = {1: "AVAILABLE", 2: "AVAILABLE"}, {"stable": 1}
    promote(1, wait_s=0.5)
    kill(2, writes)
    assert versions(site) == ([1] if writes == 1 else [1, 2])
    done, (said,) = recover(site)
    assert (done, said.split(" of ")[0]) == (None, "`promote 2`")
    assert said.endswith("is taken back: the label was not yet seen to have moved")
    assert (dict(entry(site).version_labels), versions(site)) == ({"stable": 1}, [1])
    assert [one.target for one in promotion_log.read(site.log)] == [1]


def test_a_promotion_killed_after_that_is_finished(site, fake, promote, kill):
    fake.versions, fake.labels = {1: "AVAILABLE", 2: "AVAILABLE"}, {"stable": 1}
    promote(1, wait_s=0.5)
    fake.labels = {"stable": 2}
    kill(2, writes=4)
    done, (said,) = recover(site)
    assert (done.target, said.endswith("is finished: the label had moved")) == (2, True)
    assert (dict(entry(site).version_labels), versions(site)) == ({"stable": 2}, [2])
    assert [one.target for one in promotion_log.read(site.log)] == [1, 2]
    assert promotion.previous(site, MODEL) == 1


def test_a_canary_s_end_that_is_killed_is_finished(site, fake, promote, kill):
    fake.labels = {"stable": 1, "canary": 2}
    promote(1, wait_s=0.5)
    promote(2, "canary")
    fake.labels = {"stable": 1, "canary": 1}
    kill(1, 4, "canary", "rollback --label canary")
    done, _ = recover(site)
    assert (done.label, done.target, done.command) == ("canary", 1, "rollback --label canary")
    assert (dict(entry(site).version_labels), versions(site)) == ({"stable": 1, "canary": 1}, [1])


def test_a_label_that_stood_there_before_is_not_taken_for_moved(site, fake, promote, kill):
    """The stable version was not on disk when the server started, and is brought back."""
    labelled = 'model_platform: "tensorflow" version_labels { key: "stable" value: 2 }'
    site.truth.write_text(CONFIG.replace('model_platform: "tensorflow"', labelled))
    before = models_config.read(site.truth)
    kill(2, writes=2)
    assert versions(site) == [1, 2]
    assert recover(site)[0] is None
    assert models_config.read(site.truth) == before
    assert promotion_log.read(site.log) == []


def test_labels_that_were_edited_since_stay(site, fake, promote, kill):
    fake.labels = {"stable": 1}
    promote(1, wait_s=0.5)
    kill(2, writes=2)
    config = models_config.read(site.truth)
    models_config.find(config, MODEL).version_labels["stable"] = 3
    site.save(config)
    edited = site.truth.read_text() + "# by hand\n"
    site.truth.write_text(edited)
    _, (said,) = recover(site)
    assert said.endswith("is left as it is: the labels have been changed since")
    assert site.truth.read_text() == edited


def test_other_models_stay_as_they_were_edited_meanwhile(site, fake, promote, kill):
    fake.labels = {"stable": 1}
    promote(1, wait_s=0.5)
    kill(2, writes=2)
    config = models_config.read(site.truth)
    models_config.add(config, "hats", Path("/models/hats"))
    site.save(config)
    recover(site)
    assert models_config.find(models_config.read(site.truth), "hats") is not None
    assert versions(site) == [1]


def test_what_was_written_down_and_cannot_be_read_is_named(site):
    site.unfinished.write_text("{}")
    with site.locked(), pytest.raises(ConfigError, match=r"unfinished\.json: expected what .* then delete this file"):
        unfinished.recover(site, print)


@pytest.mark.parametrize(("room", "error"), [(2, OSError), (3, PromotionError)])
def test_a_disk_that_is_full_while_the_config_comes_back_is_told(site, fake, promote, monkeypatch, room, error):
    """The label is not seen to move: whether it got into the config or not, the version is not in service later."""
    fake.labels = {"stable": 1}
    promote(1, wait_s=0.5)
    said: list[str] = []
    replace, writes = models_config.replace, 0

    def full(path: Path, text: str) -> None:
        nonlocal writes
        writes += 1
        if writes > room:
            raise OSError(28, "No space left on device")
        replace(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(models_config, "replace", full)
        with site.locked(), pytest.raises(error, match="No space left|waited 0.5 s for the label stable"):
            promotion.promote(site, Move(MODEL, 2, "stable", "promote 2", wait_s=0.5), fake.client, said.append)
    assert "the former config could not be brought back ([Errno 28] No space left on device)" in said[-1]
    assert versions(site) == [1, 2]
    assert dict(entry(site).version_labels) == {"stable": 1 if room == 2 else 2}
    recover(site)
    assert (dict(entry(site).version_labels), versions(site)) == ({"stable": 1}, [1])


def test_a_signal_while_it_is_logged_leaves_no_line(site, fake, promote, monkeypatch):
    fake.labels = {"stable": 2}

    sync = os.fsync

    def stopped(descriptor: int) -> None:
        sync(descriptor)
        if Path(f"/proc/self/fd/{descriptor}").readlink() == site.log:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stopped)
    with pytest.raises(KeyboardInterrupt):
        promote(2)
    assert promotion_log.read(site.log) == []
    assert site.truth.read_text() == CONFIG


def test_a_canary_beside_a_stable_version_that_is_not_there_leaves_what_is_in_service(site, fake, promote):
    """models.config came with a checkout, its versions did not: `make up` serves the newest there is."""
    publish(site, 3, fake.names)
    labelled = 'model_platform: "tensorflow" version_labels { key: "stable" value: 5 }'
    site.truth.write_text(CONFIG.replace('model_platform: "tensorflow"', labelled))
    fake.versions, fake.labels = {2: "AVAILABLE", 3: "AVAILABLE"}, {"canary": 3}
    said = promote(3, "canary", wait_s=0.5)
    assert versions(site) == [2, 3, 5]
    assert "requests without a label go to version 3" in said[-1]


def test_a_label_moved_by_hand_is_logged_by_the_next_command(site, fake, promote):
    fake.versions, fake.labels = {1: "AVAILABLE"}, {"stable": 1}
    promote(1)
    config = models_config.read(site.truth)
    models_config.find(config, MODEL).version_labels["stable"] = 2
    models_config.serve(models_config.find(config, MODEL), [1, 2])
    site.save(config)
    fake.versions, fake.labels = {2: "AVAILABLE"}, {"stable": 2}
    assert promote(2)[0] == f"version 2 of {MODEL} is stable already"
    assert versions(site) == [2]
    assert [one.target for one in promotion_log.read(site.log)] == [1, 2]
    assert promotion.previous(site, MODEL) == 1


def test_a_version_that_failed_before_is_tried_anew(site, fake, promote, monkeypatch):
    monkeypatch.setattr(promotion, "FORGOTTEN_S", 0.0)
    configs, save = [], Site.save

    def saved(self, config):
        configs.append(list(models_config.find(config, MODEL).model_version_policy.specific.versions))
        save(self, config)

    monkeypatch.setattr(Site, "save", saved)
    fake.versions, fake.errors = {1: "AVAILABLE", 2: "END"}, {2: "no memory left"}
    with pytest.raises(PromotionError, match="waited 0.5 s for version 2"):
        promote(2, wait_s=0.5)
    assert configs == [[1], [1, 2]]


def test_a_version_that_cannot_answer_fails_its_trial(site, fake, promote, play):
    fake.labels = {"stable": 2}
    fake.faults.append(play.status(400))
    with pytest.raises(PromotionError, match="version 2 of fashion_mnist failed its trial"):
        promote(2)
    assert site.truth.read_text() == CONFIG


def test_the_log_keeps_no_half_of_a_line(site, monkeypatch):
    one = promotion_log.Entry(promotion_log.now(), MODEL, "stable", None, 1, "promote 1")
    promotion_log.append(site.log, one)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(promotion_log.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        promotion_log.append(site.log, one)
    assert promotion_log.read(site.log) == [one]


def test_two_at_once(site, promote):
    with site.locked(), pytest.raises(PromotionError, match="another promote, rollback or prune is under way"):
        promote(2)


def test_prune_spares_what_is_loaded_or_labelled_and_asks_first(site, fake, play):
    for version in (3, 4, 5):
        publish(site, version, fake.names)
    fake.versions = {1: "END", 3: "AVAILABLE"}
    site.truth.write_text(CONFIG.replace('"tensorflow"', '"tensorflow" version_labels { key: "canary" value: 2 }'))
    alias = (
        f' config {{ name: "shoes" base_path: "{site.folder(MODEL)}" version_labels {{ key: "stable" value: 4 }} }} }}'
    )
    site.truth.write_text(site.truth.read_text().rstrip().removesuffix("}") + alias)
    assert promotion.prune(site, MODEL, 1, fake.client) == [1]
    site.truth.write_text(site.truth.read_text().replace("value: 4", "value: 3"))
    assert promotion.prune(site, MODEL, 1, fake.client) == [4]
    with pytest.raises(NoVersion, match="no version of hats in"):
        promotion.prune(site, "hats", 1, fake.client)
    assert version_files.numbers(site.folder(MODEL)) == [2, 3, 5]
    with pytest.raises(ServerUnavailable):
        promotion.prune(site, MODEL, 1, functools.partial(unreachable, fake))
    assert version_files.numbers(site.folder(MODEL)) == [2, 3, 5]


def unreachable(fake, **options: object):
    fake.url = "http://127.0.0.1:9"
    return fake.client(retries=0, **options)
