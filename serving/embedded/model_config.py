"""Model configs: what to serve from where, which versions, which labels. Checked as the real server checks them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tensorflow_serving.config.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig, ModelType

from serving.embedded import text_protos
from serving.embedded.errors import Code, ServingError, invalid_argument
from serving.embedded.flags import Flags

PLATFORM = "tensorflow"
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_VERSION = re.compile(r"\s*[+-]?[0-9]{1,40}\s*", re.ASCII)
VersionPolicy = FileSystemStoragePathSourceConfig.ServableVersionPolicy


@dataclass(frozen=True)
class ModelSettings:
    """One model of a config."""

    name: str
    base_path: Path
    policy: VersionPolicy = field(default_factory=VersionPolicy)
    labels: dict[str, int] = field(default_factory=dict)

    def versions_on_disk(self) -> dict[int, Path]:
        """Find the version directories: every directory whose name is an int64, by the rules of `absl::SimpleAtoi`.

        Of several that mean the same number ("2" and "002") the last one in the order of their names counts.

        Raises:
            OSError: the base path cannot be read.
        """
        versions: dict[int, Path] = {}
        with os.scandir(self.base_path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if _VERSION.fullmatch(entry.name) and INT64_MIN <= int(entry.name) <= INT64_MAX and entry.is_dir():
                    versions[int(entry.name)] = Path(entry.path)
        return versions

    def wanted(self, versions: Iterable[int]) -> set[int]:
        """Choose the versions to serve, by the model's policy."""
        available = sorted(versions)
        kind = self.policy.WhichOneof("policy_choice")
        if kind == "all":
            return set(available)
        if kind == "specific":
            return set(available) & set(self.policy.specific.versions)
        count = self.policy.latest.num_versions or 1
        return set(available[-count:])


def from_flags(flags: Flags) -> ModelServerConfig:
    """Read --model_config_file, or make the config of the one model of --model_name and --model_base_path."""
    if flags.model_config_file:
        return text_protos.read(Path(flags.model_config_file), ModelServerConfig())
    config = ModelServerConfig()
    # The real server refuses relative paths in config files only; on the command line the shell's directory is meant.
    base_path = os.path.abspath(flags.model_base_path)
    config.model_config_list.config.add(name=flags.model_name, base_path=base_path, model_platform=PLATFORM)
    return config


def settings(config: ModelServerConfig) -> dict[str, ModelSettings]:
    """Check a config and return its models by name.

    Raises:
        ServingError: INVALID_ARGUMENT or FAILED_PRECONDITION.
    """
    if config.WhichOneof("config") == "custom_model_config":
        raise ServingError(Code.FAILED_PRECONDITION, "ModelServer does not yet support custom model config.")
    check_names_and_paths(config)
    models: dict[str, ModelSettings] = {}
    for model in config.model_config_list.config:
        found = platform(model)
        if found != PLATFORM:
            raise invalid_argument(f"Model {model.name} requests unsupported platform {found}")
        models[model.name] = ModelSettings(
            model.name, Path(model.base_path), model.model_version_policy, dict(model.version_labels)
        )
    return models


def check_names_and_paths(config: ModelServerConfig) -> None:
    """Refuse a model listed twice, and a base path that is not absolute.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    names: set[str] = set()
    for model in config.model_config_list.config:
        if model.name in names:
            raise invalid_argument(f"Illegal to list model {model.name} multiple times in config list")
        names.add(model.name)
    for model in config.model_config_list.config:
        if "://" not in model.base_path and not os.path.isabs(model.base_path):
            raise invalid_argument(
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
            )


def platform(model: ModelConfig) -> str:
    """Return a model's platform, whichever of the two fields names it.

    Raises:
        ServingError: INVALID_ARGUMENT for both fields, for none, and for a model type nobody has heard of.
    """
    if not model.model_type:
        if not model.model_platform:
            raise invalid_argument(
                "Illegal setting neither ModelServerConfig::model_type (deprecated) "
                "nor ModelServerConfig::model_platform."
            )
        return model.model_platform
    if model.model_platform:
        raise invalid_argument(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform."
        )
    if model.model_type != ModelType.TENSORFLOW:
        raise invalid_argument(f"ModelServerConfig::model_type choice {model.model_type} not supported.")
    return PLATFORM
