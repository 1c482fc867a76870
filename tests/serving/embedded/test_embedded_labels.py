"""Labels of versions, checked before a config changes anything; no model is really loaded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from serving.embedded.errors import Code, ServingError
from serving.embedded.model_config import ModelSettings
from serving.embedded.versions import LoadPolicy, State, VersionManager


def manager(allow: bool) -> VersionManager:
    def load(name: str, version: int, path: Path) -> SimpleNamespace:
        return SimpleNamespace(model=version, close=lambda: None)

    return VersionManager(load, LoadPolicy(labels_for_unavailable=allow))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "1").mkdir()
    return tmp_path


def configure(made: VersionManager, base: Path, **labels: int) -> None:
    made.configure({"m": ModelSettings("m", base, labels=labels)})


def test_a_label_needs_a_version_that_is_available_already(base: Path) -> None:
    made = manager(allow=False)
    with pytest.raises(ServingError, match="assign label to version 1 of model m, which is not currently") as caught:
        configure(made, base, stable=1)  # at start-up: nothing is loaded yet
    assert caught.value.code == Code.FAILED_PRECONDITION
    with pytest.raises(ServingError, match="Could not find any versions of model m"):
        made.status("m")  # the refused config has left no trace
    configure(made, base)
    configure(made, base, stable=1)
    assert made.resolve("m", "stable") == 1
    (base / "2").mkdir()
    with pytest.raises(ServingError, match="assign label to version 2 of model m"):
        configure(made, base, stable=2)
    assert made.resolve("m", "stable") == 1
    assert [(s.version, s.state) for s in made.status("m")] == [(1, State.AVAILABLE)]


def test_the_flag_allows_new_labels_but_moves_none(base: Path) -> None:
    made = manager(allow=True)
    configure(made, base, stable=1, canary=7)
    assert (made.resolve("m", "stable"), made.resolve("m", "canary")) == (1, 7)
    configure(made, base, stable=1, canary=7)  # the same again moves nothing
    with pytest.raises(ServingError, match="assign label to version 8 of model m"):
        configure(made, base, canary=8)
    assert made.resolve("m", "canary") == 7
