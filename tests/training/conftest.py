"""What tests of training share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def memory_as_usual(monkeypatch):
    """Training tells glibc to keep freed memory: in this process that would hold for all tests to come."""
    monkeypatch.setattr("training.train._keep_freed_memory", lambda: None)
