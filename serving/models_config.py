"""The model config file: which models are served, in which versions, under which labels; here and in the container.

`serving/config/models.config` is the truth. Its base paths are the container's, /models/<name>; for a model server on
this machine the same config stands in `serving/config/local/models.config`, with the folders that are here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from serving.release_errors import ConfigError
from serving.version_files import numbers

CONTAINER_MODELS = Path("/models")
PLATFORM = "tensorflow"


def read(path: Path) -> ModelServerConfig:
    """Parse a model config file.

    Raises:
        ConfigError: it is not there, not a text proto, or not a list of models.
    """
    try:
        config = text_format.Parse(path.read_text(encoding="utf-8"), ModelServerConfig())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    except text_format.ParseError as error:
        raise ConfigError(f"{path}: expected a text proto ModelServerConfig, and line:column {error}") from error
    if config.WhichOneof("config") == "custom_model_config":
        raise ConfigError(f"{path}: expected a model_config_list, got a custom_model_config")
    return config


def write(path: Path, config: ModelServerConfig) -> None:
    """Replace a model config file in one step; the comment at its head stays.

    A reader sees the old file or the new one. Renamed within its folder: a container mounts the folder, and would go on
    seeing the old file if it mounted that.

    Raises:
        OSError: it cannot be written; the old one is as it was.
    """
    replace(path, _header(path) + text_format.MessageToString(config))


def replace(path: Path, text: str) -> None:
    """Put a text in a file's place: written beside it, synced, renamed.

    Raises:
        OSError: it cannot be written; the old one is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # the container's server is another user
            os.fsync(file.fileno())
        Path(beside).rename(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring what was renamed in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def find(config: ModelServerConfig, name: str) -> ModelConfig | None:
    """A model's entry; None where the config does not have the model."""
    return next((model for model in config.model_config_list.config if model.name == name), None)


def add(config: ModelServerConfig, name: str, base_path: Path) -> ModelConfig:
    """A new entry, whose newest version is served."""
    model = config.model_config_list.config.add(name=name, base_path=str(base_path), model_platform=PLATFORM)
    model.model_version_policy.latest.num_versions = 1
    return model


def serve(model: ModelConfig, versions: Iterable[int]) -> None:
    """Set an entry's policy to these versions and no others."""
    model.model_version_policy.specific.ClearField("versions")  # also switches from another policy to this one
    model.model_version_policy.specific.versions.extend(sorted(set(versions)))


def folder_here(model: ModelConfig, models: Path) -> Path:
    """Where a model's versions are on this machine: the container's /models is `models`, other paths stay."""
    base_path = Path(model.base_path)
    if base_path.is_relative_to(CONTAINER_MODELS):
        return models / base_path.relative_to(CONTAINER_MODELS)
    return base_path


def localised(
    config: ModelServerConfig, base_paths: Mapping[str, Path], models: Path
) -> tuple[ModelServerConfig, list[str]]:
    """The config for a model server on this machine, which starts whatever is missing from the disk.

    A model server waits for ever for a model without a version, and takes up no version of any model while one folder
    is missing: so neither gets into it.

    Args:
        config: with the container's base paths.
        base_paths: folders of models by name, instead of those in `models`; a model not in `config` is added.
        models: the folder that holds the other models' folders.

    Returns:
        The config, and a line for everything in which it differs beyond paths and added models.
    """
    local, notes = ModelServerConfig(), []
    for model in config.model_config_list.config:
        folder = base_paths.get(model.name) or folder_here(model, models)
        on_disk = numbers(folder)
        if not on_disk:
            notes.append(f"{model.name} is not served: no version in {folder}")
            continue
        entry = local.model_config_list.config.add()
        entry.CopyFrom(model)
        entry.base_path = str(folder)
        notes += _without_missing(entry, on_disk)
    for name, folder in base_paths.items():
        if find(config, name) is None and numbers(folder):
            add(local, name, folder)
    return local, notes


def _without_missing(model: ModelConfig, on_disk: list[int]) -> list[str]:
    """Take labels and versions out of an entry that are not on disk; what to say about it."""
    notes = []
    for label, version in sorted(model.version_labels.items()):
        if version not in on_disk:
            del model.version_labels[label]
            notes.append(
                f"{model.name}: version {version}, labelled {label}, is not in {model.base_path}; bring it back, or "
                f"promote another: python -m serving promote N --model {model.name} --label {label}"
            )
    if model.model_version_policy.WhichOneof("policy_choice") == "specific":
        wanted = model.model_version_policy.specific.versions
        present = [version for version in wanted if version in on_disk]
        if present:
            serve(model, present)
        else:
            notes.append(
                f"{model.name}: of the versions to serve, {', '.join(map(str, sorted(wanted))) or 'none'}, not one is "
                f"in {model.base_path}; the newest there, {on_disk[-1]}, is served"
            )
            model.model_version_policy.latest.num_versions = 1
    return notes


def _header(path: Path) -> str:
    """The comment lines a file begins with: text_format keeps none."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    count = next((at for at, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    return "".join(lines[:count])
