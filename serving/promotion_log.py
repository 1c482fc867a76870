"""The log of promotions: which label was moved when, from where to where, by which command; and what was before.

One JSON object a line, in `serving/config/promotions.jsonl`; lines are only ever added.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from serving.release_errors import LogError

ROLLBACK = "rollback"
_KEYS = {"when": "when", "model": "model", "label": "label", "from": "source", "to": "target", "command": "command"}


@dataclass(frozen=True)
class Entry:
    """One move of a label.

    Attributes:
        when: UTC, ISO 8601.
        model: its name.
        label: what was moved.
        source: the version that had the label, or without one the version in service; None where there was none.
        target: the version that has it now.
        command: `promote` or `rollback` with its arguments.
    """

    when: str
    model: str
    label: str
    source: int | None
    target: int
    command: str


def now() -> str:
    """The time as it stands in the log."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def append(path: Path, *entries: Entry) -> None:
    """Add a line each, on disk when this returns.

    Raises:
        OSError: it cannot be written; nothing of it stays.
    """
    values = [{key: getattr(entry, name) for key, name in _KEYS.items()} for entry in entries]
    lines = "".join(f"{json.dumps(one)}\n" for one in values).encode()
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            if file.write(lines) < len(lines):
                raise OSError(errno.ENOSPC, "only half of a line could be written", str(path))
            os.fsync(file.fileno())
        except BaseException:  # a signal too
            file.truncate(size)
            raise


def read(path: Path) -> list[Entry]:
    """All entries, oldest first; none where there is no log yet.

    Raises:
        LogError: a line is none of ours.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            entries.append(Entry(**{name: values[key] for key, name in _KEYS.items()}))
        except (ValueError, TypeError, KeyError) as error:
            raise LogError(
                f"{path}, line {number}: expected a JSON object of {', '.join(_KEYS)} "
                f"({type(error).__name__}: {error}); correct the line or take it out"
            ) from error
    return entries


def history(entries: list[Entry], model: str, label: str) -> list[int]:
    """The versions that have had a label, the present one first.

    A rollback takes back what was promoted since: after 1, 2, 3 and a rollback to 2 the one before is 1, not 3.
    """
    had: list[int] = []
    for entry in entries:
        if (entry.model, entry.label) != (model, label):
            continue
        if entry.command.startswith(ROLLBACK):
            while had and had[-1] != entry.target:
                had.pop()
        elif entry.source is not None and had[-1:] != [entry.source]:
            had.append(entry.source)
        if had[-1:] != [entry.target]:
            had.append(entry.target)
    return had[::-1]
