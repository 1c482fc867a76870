"""The log of promotions: what was written comes back, and says what was before."""

from __future__ import annotations

import json

import pytest

from serving.promotion_log import Entry, append, history, now, read
from serving.release_errors import LogError


def moves(*steps: tuple[str, int | None, int], label: str = "stable", model: str = "m") -> list[Entry]:
    return [Entry("", model, label, source, target, command) for command, source, target in steps]


def test_entries_come_back_in_order(tmp_path):
    path = tmp_path / "promotions.jsonl"
    assert read(path) == []
    entries = [Entry(now(), "m", "stable", None, 1, "promote 1"), Entry(now(), "m", "canary", 1, 2, "promote 2")]
    for entry in entries:
        append(path, entry)
    assert read(path) == entries
    assert list(json.loads(path.read_text().splitlines()[0])) == ["when", "model", "label", "from", "to", "command"]


@pytest.mark.parametrize("line", ["{", "[]", '{"model": "m"}'])
def test_a_line_that_is_none_of_ours_is_named(tmp_path, line):
    path = tmp_path / "promotions.jsonl"
    append(path, Entry(now(), "m", "stable", None, 1, "promote 1"))
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(LogError, match="line 2: expected a JSON object of when, model"):
        read(path)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (moves(), []),
        (moves(("promote 1", None, 1)), [1]),
        (moves(("promote 2", 3, 2)), [2, 3]),
        (moves(("promote 1", None, 1), ("promote 2", 1, 2), ("promote 3", 2, 3)), [3, 2, 1]),
        (moves(("promote 1", None, 1), ("promote 2", 1, 2), ("promote 3", 2, 3), ("rollback", 3, 2)), [2, 1]),
        (moves(("promote 2", None, 2), ("rollback", 2, 1)), [1]),
        (moves(("promote 1", None, 1), ("promote 2", 1, 2), ("promote 1", 2, 1)), [1, 2, 1]),
        (moves(("promote 1", None, 1), ("promote 2", 5, 2)), [2, 5, 1]),
        (moves(("promote 1", None, 1), label="canary") + moves(("promote 1", None, 1), model="other"), []),
    ],
)
def test_history(entries, expected):
    assert history(entries, "m", "stable") == expected
