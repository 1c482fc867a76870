"""The commands of `python -m serving` that change or check what is served: promote, rollback, verify, prune."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from serving import promotion, promotion_log, unfinished, version_files
from serving.commands import OK, print_json, print_table, say
from serving.promotion import Move
from serving.site import Site

DAMAGED = 7


def promote(options: argparse.Namespace) -> int:
    """Bring a version into service under a label."""
    site = _site(options)
    with site.locked(), _stopped_like_by_ctrl_c():
        unfinished.recover(site, say)
        _move(site, options, options.number, options.label, force=options.force)
        if options.keep is not None:
            _prune(site, options)
    return OK


def rollback(options: argparse.Namespace) -> int:
    """Give `stable` back to the version that had it before, or end a canary: its label goes to the stable version."""
    site = _site(options)
    with site.locked(), _stopped_like_by_ctrl_c():
        model, label = options.where.model, options.label
        done = unfinished.recover(site, say)
        if done and (done.model, done.label) == (model, label) and done.command.startswith(promotion_log.ROLLBACK):
            version = done.target  # the one that was interrupted, not a second one
        else:
            version = promotion.previous(site, model, label)
        say(f"back to version {version} of {model}")
        _move(site, options, version, label, force=options.force)
    return OK


def verify(options: argparse.Namespace) -> int:
    """Hold every file of a version against its manifest; asks no server."""
    model = options.where.model
    version_dir = version_files.version_folder(_site(options).folder(model), options.number)
    found = version_files.check(version_dir)
    bad = [one for one in found if one.state != version_files.OK]
    if options.json:
        print_json({"model": model, "version": options.number, "files": [vars(one) for one in found], "ok": not bad})
    else:
        print_table(["file", "state"], [[one.file, one.state] for one in found], right=set())
        counts = Counter(one.state for one in found)
        say(f"version {options.number} of {model}: {', '.join(f'{n} {state}' for state, n in counts.items())}")
    return DAMAGED if bad else OK


def prune(options: argparse.Namespace) -> int:
    """Delete old versions."""
    site = _site(options)
    with site.locked():
        _prune(site, options)
    return OK


@contextlib.contextmanager
def _stopped_like_by_ctrl_c() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a terminal that closes, are an exception as well: the former config comes back. The first
    signal is the last: a second one would come in between."""
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    heard = [number for number, handler in former.items() if handler is not signal.SIG_IGN]  # SIGHUP not under nohup

    def stop(*_: object) -> None:
        for number in heard:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in heard:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _site(options: argparse.Namespace) -> Site:
    return Site() if options.models is None else Site(models=Path(options.models))


def _move(site: Site, options: argparse.Namespace, version: int, label: str, *, force: bool) -> None:
    command = shlex.join(options.argv)
    move = Move(options.where.model, version, label, command, trusted=force, wait_s=options.wait)
    promotion.promote(site, move, options.connect, say)


def _prune(site: Site, options: argparse.Namespace) -> None:
    model = options.where.model
    gone = promotion.prune(site, model, options.keep, options.connect)
    left = ", ".join(map(str, version_files.numbers(site.folder(model)))) or "none"
    say(f"deleted of {model}: {', '.join(map(str, gone)) or 'none'}; on disk: {left}")
