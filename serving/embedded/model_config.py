"""Model configs: what to serve from where, which versions, which labels. Checked as the real server checks them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tensorflow_serving.config import model_server_config_pb2
from tensorflow_serving.config.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.embedded import text_protos
from serving.embedded.errors import Code, ServingError, invalid_argument
from serving.embedded.flags import Flags

PLATFORM = "tensorflow"
INT64_MAX = 2**63 - 1
VersionPolicy = FileSystemStoragePathSourceConfig.ServableVersionPolicy


@dataclass(frozen=True)
class ModelSettings:
    """One model of a config."""

    name: str
    base_path: Path
    policy: VersionPolicy = field(default_factory=VersionPolicy)
    labels: dict[str, int] = field(default_factory=dict)

    def versions_on_disk(self) -> dict[int, Path]:
        """Find the version directories: every directory whose name is a whole number.

        Raises:
            OSError: the base path cannot be read.
        """
        versions: dict[int, Path] = {}
        with os.scandir(self.base_path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.isascii() and entry.name.isdigit() and int(entry.name) <= INT64_MAX and entry.is_dir():
                    versions.setdefault(int(entry.name), Path(entry.path))
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

    The real server keeps a config with an empty model_platform though it refuses it, and then refuses every later one
    too; here a refused config leaves no trace.

    Raises:
        ServingError: INVALID_ARGUMENT or FAILED_PRECONDITION.
    """
    kind = config.WhichOneof("config")
    if kind == "custom_model_config":
        raise ServingError(Code.FAILED_PRECONDITION, "ModelServer does not yet support custom model config.")
    models: dict[str, ModelSettings] = {}
    for model in config.model_config_list.config:
        _check_platform(model)
        if not model.name:
            raise invalid_argument("Illegal model config: a model has no name.")
        if model.name in models:
            raise invalid_argument(f"Illegal to list model {model.name} multiple times in config list")
        if not model.base_path:
            raise invalid_argument(f"Illegal model config: model {model.name} has no base_path.")
        if "://" not in model.base_path and not os.path.isabs(model.base_path):
            raise invalid_argument(
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
            )
        models[model.name] = ModelSettings(
            model.name, Path(model.base_path), model.model_version_policy, dict(model.version_labels)
        )
    return models


def _check_platform(model: model_server_config_pb2.ModelConfig) -> None:
    if model.model_type and model.model_platform:
        raise invalid_argument("Illegal setting both model_type(deprecated) and model_platform.")
    if model.model_type == model_server_config_pb2.ModelType.TENSORFLOW:
        return
    if not model.model_platform:
        raise invalid_argument("Illegal setting neither model_type(deprecated) nor model_platform.")
    if model.model_platform != PLATFORM:
        raise invalid_argument(
            f'Unknown model platform "{model.model_platform}" of model {model.name}; only "tensorflow".'
        )
