"""One config after the other, and the versions they ask for; no model is really loaded."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from embedded_server import wait_until
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.embedded.config_reloader import ConfigReloader
from serving.embedded.errors import Code, ServingError, invalid_argument
from serving.embedded.model_config import ModelSettings, VersionPolicy
from serving.embedded.versions import LoadPolicy, State, VersionManager


class Manager(VersionManager):
    """Loads anything but the versions it is told to fail, and remembers the order."""

    def __init__(self, *broken: int) -> None:
        super().__init__(self._pretend, LoadPolicy(max_num_load_retries=0))
        self.loads: list[int] = []
        self._broken = broken

    def _pretend(self, name: str, version: int, path: Path) -> SimpleNamespace:
        self.loads.append(version)
        if version in self._broken:
            raise invalid_argument("broken")
        return SimpleNamespace(model=version, close=lambda: None)

    def serving(self) -> set[int]:
        return {status.version for status in self.status("m") if status.state == State.AVAILABLE}


def config(base: Path, platform: str = "tensorflow") -> ModelServerConfig:
    text = f'model_config_list {{ config {{ name: "m" base_path: "{base}" model_platform: "{platform}" }} }}'
    return text_format.Parse(text, ModelServerConfig())


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for version in (1, 2, 3):
        (tmp_path / str(version)).mkdir()
    return tmp_path


def test_an_empty_platform_spoils_every_later_config(base: Path) -> None:
    """As in the real server: it keeps the config though it refuses it."""
    configs = ConfigReloader(Manager())
    for asked in (config(base, ""), config(base), config(base / "elsewhere")):
        with pytest.raises(ServingError, match="Illegal setting neither ModelServerConfig::model_type") as caught:
            configs.apply(asked)
        assert caught.value.code == Code.INVALID_ARGUMENT


def test_from_a_list_of_models_only_to_another(base: Path) -> None:
    manager = Manager()
    configs = ConfigReloader(manager)
    configs.apply(ModelServerConfig())  # nothing to do yet
    configs.apply(config(base))
    assert manager.serving() == {3}
    with pytest.raises(ServingError, match="Cannot transition to requested config.") as caught:
        configs.apply(ModelServerConfig())
    assert caught.value.code == Code.FAILED_PRECONDITION
    configs.apply(config(base))
    none = ModelServerConfig()
    none.model_config_list.SetInParent()
    configs.apply(none)
    with pytest.raises(ServingError, match=r"Servable not found for request: Latest\(m\)"), manager.use("m"):
        pass


def test_the_highest_version_is_loaded_first_and_the_last_to_go(base: Path) -> None:
    manager = Manager(5)
    policy = VersionPolicy()
    policy.latest.num_versions = 2
    manager.configure({"m": ModelSettings("m", base, policy)})
    assert manager.loads == [3, 2]
    for version in (1, 2, 3):
        shutil.rmtree(base / str(version))
    (base / "5").mkdir()
    manager.poll()  # nothing wanted can be had: one of the old versions stays
    wait_until(lambda: manager.serving() == {3})
    (base / "6").mkdir()
    manager.poll()
    wait_until(lambda: manager.serving() == {6})
    assert manager.loads == [3, 2, 5, 6]
