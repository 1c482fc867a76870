"""Promotion: brings a version into service under a label while requests flow, and back again.

The model config changes in three steps, each only when the model server has followed the one before: the version is
loaded beside those in service; the label moves to it once it has answered through the gateway; what no label holds
leaves memory. Whatever goes wrong before the label has moved, the former config comes back; `unfinished.recover` puts
right what a killed run leaves. A label that clients ask by never goes away: a canary that is over stands for `stable`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving import models_config, promotion_log, unfinished, version_files
from serving.client import (
    BadResponse,
    InternalError,
    InvalidArgument,
    NotFound,
    ServingError,
    Unimplemented,
    VersionStatus,
)
from serving.client.base import BaseClient
from serving.client.errors import clip
from serving.promotion_log import Entry
from serving.release_errors import NoManifest, NoVersion, PromotionError
from serving.site import MODELS, Site

STABLE, CANARY = "stable", "canary"
LOOK_EVERY_S = 0.2
# Several servers may stand behind the gateway, which asks them in turn: so many answers in a row have to agree.
AGREEING = 4
# So long may a server show the end of an earlier attempt before it has read the new config.
STALE_S = 10.0
# So long after a version has left the config every server has read it: ours looks once a second.
FORGOTTEN_S = 5.0

Say = Callable[[str], None]
Connect = Callable[..., BaseClient]


@dataclass(frozen=True)
class Move:
    """One label to be moved.

    Attributes:
        model, version, label: what goes where.
        command: what stands in the log.
        trusted: a version without a manifest of its own is taken too.
        wait_s: longest wait for the server to follow, each step, seconds.
    """

    model: str
    version: int
    label: str
    command: str
    trusted: bool = False
    wait_s: float = 120.0


def promote(site: Site, move: Move, connect: Connect, say: Say) -> None:
    """Bring a version into service under a label. To be called under the site's lock, after `unfinished.recover`.

    Args:
        site: where everything is.
        move: what to move.
        connect: makes a client of the model by its keywords `version` and `label`; none for the latest.
        say: takes a line about every step.

    Raises:
        PromotionError: the version is damaged, does not load in time, or answers wrongly.
        NoVersion: it is not on disk.
        ConfigError: models.config is broken.
        OSError: it cannot be written.
        ServingError: the server cannot be asked.
    """
    classes = _vouched_for(site, move)
    config = models_config.read(site.truth)
    entry = models_config.find(config, move.model)
    labels = dict(entry.version_labels) if entry else {}
    if move.label == CANARY and labels.get(STABLE) == move.version and not _goes_back(move):
        raise PromotionError(f"version {move.version} is stable; a canary is another version, beside the stable one")
    after = labels | {move.label: move.version}
    if move.label == STABLE and CANARY in labels and labels[CANARY] in {move.version, labels.get(STABLE)}:
        after[CANARY] = move.version
    with connect() as client:
        before = _status(client)
        loaded = {one.version for one in before if one.available}
        # while the stable version is not loaded, if there is one, what is in service stays
        kept = {*after.values(), *(() if after.get(STABLE) in {*loaded, move.version} else loaded)}
        if labels.get(move.label) == move.version and _answering(connect, move.label) == move.version:
            say(f"version {move.version} of {move.model} is {move.label} already")
            if _latest_in_log(site, move) != move.version:
                promotion_log.append(site.log, *_entries(move, {move.label: None}))
            if labels.get(STABLE) in loaded:
                _release(site, move, config, kept, loaded, client, say)
            return
        source = labels.get(move.label) or (max(loaded, default=None) if move.label == STABLE else None)
        source = None if source == move.version else source
        follows = {CANARY: labels[CANARY]} if after.get(CANARY) != labels.get(CANARY) and move.label == STABLE else {}
        entries = _entries(move, {move.label: source} | follows)
        former = {path: path.read_text(encoding="utf-8") for path in (site.truth, site.local) if path.exists()}
        unfinished.begin(site, entries, kept, entry)
        try:
            _load(site, move, config, loaded, client, before, say)
            say(f"version {move.version} is loaded")
            _try_out(client, move, classes)
            say(f"version {move.version} answers through the gateway")
            entry = models_config.find(config, move.model)
            for label, version in after.items():
                entry.version_labels[label] = version
            if move.label == STABLE and after.get(CANARY) == move.version:
                say(f"version {move.version} gets the label {CANARY} too: no other version has it any more")
            site.save(config)
            _wait_for_label(connect, move)
            promotion_log.append(site.log, *entries)
        except BaseException:
            _bring_back(site, former, say)
            raise
        say(f"version {move.version} of {move.model} is {move.label}" + (f", it was {source}" if source else ""))
        try:
            _release(site, move, config, kept, loaded, client, say)
        except BaseException:
            say("what is left to do, the next promote, rollback or `make up` does")
            raise
        unfinished.end(site)


def previous(site: Site, model: str, label: str = STABLE) -> int:
    """The version a rollback leads to: for `stable` the one before by the log, the next lower one on disk where the log
    knows none; for `canary` the stable one.

    Raises:
        PromotionError: nothing is stable, or there is nothing to go back to.
    """
    entry = models_config.find(models_config.read(site.truth), model)
    stable = entry.version_labels.get(STABLE) if entry else None
    if not stable:
        raise PromotionError(
            f"no version of {model} is stable yet, so there is nothing to roll back; promote one first"
        )
    if label == CANARY:
        if entry.version_labels.get(CANARY, stable) == stable:
            raise PromotionError(f"{model} has no canary beside version {stable}, which is stable; nothing was changed")
        return stable
    on_disk = version_files.numbers(site.folder(model))
    had = promotion_log.history(promotion_log.read(site.log), model, STABLE)
    if stable in had:
        had = had[had.index(stable) + 1 :]
    had = [version for version in had if version != stable]
    lower = [version for version in on_disk[::-1] if version < stable]
    found = next((version for version in had or lower if version in on_disk), None)
    if found is None:
        before = f"what was stable before it ({', '.join(map(str, had))})" if had else "an earlier one"
        there = ", ".join(str(version) for version in on_disk if version != stable) or "none"
        raise PromotionError(
            f"version {stable} of {model} is stable and stays: {before} is not in {site.folder(model)}. Other versions "
            f"there: {there}; promote one of them"
        )
    return found


def prune(site: Site, model: str, keep: int, connect: Connect) -> list[int]:
    """Delete the oldest versions on disk, never one that is loaded or labelled. To be called under the site's lock.

    Args:
        keep: how many of the newest stay.

    Returns:
        What was deleted.

    Raises:
        NoVersion: the model has none on disk.
        ServingError: the server cannot be asked what is loaded; nothing was deleted.
    """
    folder = site.folder(model)
    if not version_files.numbers(folder):
        raise NoVersion(f"no version of {model} in {folder}")
    with connect() as client:
        spared = {one.version for _ in range(AGREEING) for one in _status(client) if one.state != "END"}
    return version_files.remove_old(folder, keep, spared | site.configured(folder))


def _vouched_for(site: Site, move: Move) -> list[str] | None:
    """Hold the version against its manifest; the class names in it, None for a trusted one without."""
    version_dir = version_files.version_folder(site.folder(move.model), move.version)
    try:
        manifest = version_files.manifest(version_dir)
    except NoManifest as error:
        if move.trusted:
            return None
        raise PromotionError(
            f"{error}. Nothing says what this version should be; --force takes it all the same"
        ) from error
    if damage := version_files.damage(version_dir):
        raise PromotionError(f"version {move.version} of {move.model} is damaged: {damage}; publish it again")
    names = (manifest.get("name"), manifest.get("version"))
    if names != (move.model, move.version) and not move.trusted:
        raise PromotionError(
            f"{version_dir}: expected the manifest of version {move.version} of {move.model}, got that of version "
            f"{names[1]} of {names[0]}; publish it with `python -m training.publish`, or take it with --force"
        )
    classes: list[str] | None = manifest.get("classes")
    return classes


def _status(client: BaseClient) -> list[VersionStatus]:
    """The versions a server knows; none where it does not know the model."""
    try:
        return client.status()
    except NotFound:
        return []


def _load(
    site: Site,
    move: Move,
    config: ModelServerConfig,
    loaded: set[int],
    client: BaseClient,
    before: list[VersionStatus],
    say: Say,
) -> None:
    """Have the version loaded beside those in service."""
    entry = models_config.find(config, move.model)
    if entry is None:
        entry = models_config.add(config, move.model, models_config.CONTAINER_MODELS / move.model)
        if not (models_config.folder_here(entry, site.models or MODELS) / str(move.version)).is_dir():
            say(f"note: {site.folder(move.model)} is not where the containers look; they cannot serve {move.model}")
    beside = {*loaded, *entry.version_labels.values()} - {move.version}
    if beside and any(one.version == move.version and one.error_message for one in before):
        say(f"version {move.version} did not load when it was tried before; the server is asked to forget that first")
        models_config.serve(entry, beside)
        site.save(config)
        time.sleep(FORGOTTEN_S)
    models_config.serve(entry, {*beside, move.version})
    site.save(config)
    began = time.monotonic()
    ended = [one.error_message for one in before if one.version == move.version and one.state == "END"]

    def is_loaded() -> bool:
        one = next((one for one in _status(client) if one.version == move.version), None)
        if one is None or one.state != "END":
            ended.clear()
            return one is not None and one.available
        from_before = one.error_message in ended and time.monotonic() - began < STALE_S
        if one.error_message and not from_before:
            raise PromotionError(f"version {move.version} of {move.model} did not load: {clip(one.error_message)}")
        return False

    _wait(is_loaded, move, f"version {move.version} of {move.model} to be loaded")


def _try_out(client: BaseClient, move: Move, classes: list[str] | None) -> None:
    """One prediction by the version itself, on a picture made here."""
    try:
        probabilities = client.predict(_picture(), version=move.version)[0].probabilities
        names = None if classes is None else list(client.classes(move.version))
    except (InvalidArgument, NotFound, Unimplemented, InternalError, BadResponse) as error:
        raise PromotionError(f"version {move.version} of {move.model} failed its trial: {clip(str(error))}") from error
    if not (np.isfinite(probabilities).all() and abs(float(probabilities.sum()) - 1) < 1e-3):
        raise PromotionError(
            f"version {move.version} of {move.model}: expected finite probabilities that sum to 1, got "
            f"{np.round(probabilities, 4).tolist()}"
        )
    if classes is not None and names is not None and names != classes:
        raise PromotionError(
            f"version {move.version} of {move.model}: expected the classes of its manifest, {', '.join(classes)}; it "
            f"answers with {', '.join(names)}"
        )


def _picture() -> Any:
    """A light disc on black, uint8 (28, 28): some object on some ground, whatever the model knows."""
    rows, columns = np.mgrid[:28, :28]
    return np.where((rows - 13.5) ** 2 + (columns - 13.5) ** 2 < 100, 200, 0).astype(np.uint8)


def _goes_back(move: Move) -> bool:
    return move.command.startswith(promotion_log.ROLLBACK)


def _latest_in_log(site: Site, move: Move) -> int | None:
    return next(iter(promotion_log.history(promotion_log.read(site.log), move.model, move.label)), None)


def _entries(move: Move, moved: Mapping[str, int | None]) -> list[Entry]:
    """A line for each label that goes to the move's version, by what had it before."""
    now = promotion_log.now()
    return [Entry(now, move.model, label, was, move.version, move.command) for label, was in moved.items()]


def _bring_back(site: Site, former: Mapping[Path, str], say: Say) -> None:
    try:
        for path, text in former.items():
            models_config.replace(path, text)
        unfinished.end(site)
    except OSError as error:  # a full disk, say; what went wrong first is what is raised
        say(f"the former config could not be brought back ({error}); the next promote, rollback or `make up` does it")
    else:
        say("the former config is back")


def _wait_for_label(connect: Connect, move: Move) -> None:
    _wait(
        lambda: _answering(connect, move.label) == move.version,
        move,
        f"the label {move.label} of {move.model} to stand for version {move.version}",
    )
    with connect(label=move.label) as client:
        answered = client.predict(_picture())[0].version
    if answered != move.version:
        raise PromotionError(f"{move.label} of {move.model}: expected version {move.version} to answer, got {answered}")


def _answering(connect: Connect, label: str) -> int | None:
    """The version that answers under a label; None where the server does not know the label."""
    with connect(label=label) as client:
        try:
            return client.metadata().version
        except (InvalidArgument, NotFound):
            return None


def _release(
    site: Site,
    move: Move,
    config: ModelServerConfig,
    kept: set[int],
    loaded: set[int],
    client: BaseClient,
    say: Say,
) -> None:
    """Let go of all versions but those that are kept."""
    entry = models_config.find(config, move.model)
    models_config.serve(entry, kept)
    site.save(config)
    leaving = (loaded | {move.version}) - kept
    try:
        _wait(lambda: not leaving & {one.version for one in _status(client) if one.state != "END"}, move, "")
    except (PromotionError, ServingError):  # the label has moved: that is done, whatever the server says of the rest
        if leaving:
            say(f"still being unloaded: {', '.join(map(str, sorted(leaving)))}")
    latest = max(kept & (loaded | {move.version}))
    if latest != entry.version_labels.get(STABLE, latest):
        say(f"requests without a label go to version {latest}, the highest that is loaded; ask for stable by its label")


def _wait(condition: Callable[[], bool], move: Move, what: str) -> None:
    """Look until the condition held several times in a row.

    Raises:
        PromotionError: it did not within the move's time.
    """
    deadline, agreed = time.monotonic() + move.wait_s, 0
    while True:
        agreed = agreed + 1 if condition() else 0
        if agreed == AGREEING:
            return
        if time.monotonic() > deadline:
            raise PromotionError(f"waited {move.wait_s:g} s for {what}; look at the model server's log")
        if not agreed:
            time.sleep(LOOK_EVERY_S)
