"""What tests of training share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def memory_as_usual() -> Iterator[None]:
    """Training tells glibc to keep freed memory: in this process that would hold for all tests to come."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("training.memory.keep_freed_memory", lambda: None)
        yield
