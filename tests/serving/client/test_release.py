"""Promotion and rollback before a server that does what it should, or does not: what is refused changes nothing."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from serving import models_config, promotion, promotion_log, version_files
from serving.client import ServerUnavailable
from serving.promotion import Move
from serving.release_errors import NoVersion, PromotionError
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
    with pytest.raises(PromotionError, match=f"version 1 of {MODEL} is stable, and no earlier one is in"):
        promotion.previous(site, MODEL)
    fake.versions, fake.labels = {2: "AVAILABLE"}, {"stable": 2}
    promote(2)
    site.log.unlink()
    assert promotion.previous(site, MODEL) == 1


def test_a_rollback_never_goes_forward(site, fake, promote):
    publish(site, 3, fake.names)
    for version in (1, 2, 3):
        fake.versions, fake.labels = {version: "AVAILABLE"}, {"stable": version}
        promote(version)
    config = models_config.read(site.truth)
    models_config.find(config, MODEL).version_labels["stable"] = 2  # a rollback, killed before it was logged
    site.save(config)
    assert promotion.previous(site, MODEL) == 2
    fake.versions, fake.labels = {2: "AVAILABLE"}, {"stable": 2}
    assert promote(2, command="rollback")[0] == f"version 2 of {MODEL} is stable already"
    assert promotion.previous(site, MODEL) == 1
    models_config.find(config, MODEL).version_labels["stable"] = 1  # by hand
    site.save(config)
    shutil.rmtree(site.folder(MODEL) / "2")
    fake.versions, fake.labels = {1: "AVAILABLE"}, {"stable": 1}
    assert promotion.previous(site, MODEL) == 1
    promote(1, command="rollback")
    with pytest.raises(PromotionError, match="no earlier one"):
        promotion.previous(site, MODEL)


def test_what_a_killed_promotion_left_is_tidied_up_by_the_next(site, fake, promote):
    fake.versions, fake.labels = {1: "AVAILABLE"}, {"stable": 1}
    promote(1)
    config = models_config.read(site.truth)
    models_config.serve(models_config.find(config, MODEL), [1, 2])  # 2 was loaded, and the process killed
    site.save(config)
    assert promote(1)[0] == f"version 1 of {MODEL} is stable already"
    assert list(entry(site).model_version_policy.specific.versions) == [1]
    assert len(promotion_log.read(site.log)) == 1
    models_config.find(config, MODEL).version_labels["stable"] = 2  # or the label had moved, and nothing was logged
    site.save(config)
    fake.versions, fake.labels = {2: "AVAILABLE"}, {"stable": 2}
    promote(2)
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
