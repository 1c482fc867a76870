"""Where the model configs, the log of promotions and the models of this checkout are, and the lock on them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving import models_config
from serving.release_errors import PromotionError

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "serving" / "models"


@dataclass(frozen=True)
class Site:
    """Where configs, log and models are.

    Attributes:
        config: the folder of models.config.
        models: a folder that holds a folder a model, instead of the folders that the model server reads.
    """

    config: Path = ROOT / "serving" / "config"
    models: Path | None = None

    @property
    def truth(self) -> Path:
        """The config that is kept, with the container's paths."""
        return self.config / "models.config"

    @property
    def local(self) -> Path:
        """The one for a model server on this machine; there once `serving up` has run."""
        return self.config / "local" / "models.config"

    @property
    def log(self) -> Path:
        """The log of promotions."""
        return self.config / "promotions.jsonl"

    @property
    def unfinished(self) -> Path:
        """What a promotion that is under way has written down."""
        return self.config / "unfinished.json"

    def folder(self, model: str) -> Path:
        """Where a model's versions are on this machine.

        Raises:
            ConfigError: a config cannot be read.
        """
        for path in (self.local, self.truth) if self.models is None else ():
            entry = models_config.find(models_config.read(path), model) if path.exists() else None
            if entry is not None:
                return models_config.folder_here(entry, MODELS)
        return (self.models or MODELS) / model

    def save(self, config: ModelServerConfig) -> None:
        """Replace the truth, then what a model server on this machine reads, if there is one.

        Raises:
            OSError: it cannot be written.
        """
        models_config.write(self.truth, config)
        if self.local.exists():
            base_paths = {
                model.name: Path(model.base_path) for model in models_config.read(self.local).model_config_list.config
            }
            models_config.write(self.local, models_config.localised(config, base_paths, self.models or MODELS)[0])

    def configured(self, folder: Path) -> set[int]:
        """The versions in a folder that a config labels or lists, under whatever model name.

        Raises:
            ConfigError: a config cannot be read.
        """
        found: set[int] = set()
        for path in (self.truth, self.local):
            for model in models_config.read(path).model_config_list.config if path.exists() else ():
                if models_config.folder_here(model, self.models or MODELS).resolve() == folder.resolve():
                    found |= {*model.version_labels.values(), *model.model_version_policy.specific.versions}
        return found

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other promotions out meanwhile.

        Raises:
            PromotionError: another one is under way.
        """
        descriptor = os.open(self.config, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PromotionError(
                "another promote, rollback or prune is under way; try again when it has ended"
            ) from None
        else:
            yield
        finally:
            os.close(descriptor)
