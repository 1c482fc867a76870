"""The commands of `python -m serving` that change or check what is served: promote, rollback, verify, prune."""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from pathlib import Path

from serving import promotion, version_files
from serving.commands import OK, print_json, print_table, say
from serving.promotion import STABLE, Move
from serving.site import Site

DAMAGED = 7


def promote(options: argparse.Namespace) -> int:
    """Bring a version into service under a label."""
    site = _site(options)
    with site.locked():
        _move(site, options, options.number, options.label, force=options.force)
        if options.keep is not None:
            _prune(site, options)
    return OK


def rollback(options: argparse.Namespace) -> int:
    """Give the label `stable` back to the version that had it before."""
    site = _site(options)
    with site.locked():
        version = promotion.previous(site, options.where.model)
        say(f"back to version {version} of {options.where.model}")
        _move(site, options, version, STABLE, force=options.force)
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
