"""Applies model configs one after the other, and holds each against the one before, as the real server does.

The real server remembers a config before all of it is checked. So a model whose platform was refused stays refused:
with an empty platform every later config is refused too, with an unknown one every later config that names another.
Only a restart helps, in production and so here.
"""

from __future__ import annotations

import logging
import threading

from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.embedded import model_config
from serving.embedded.errors import Code, ServingError, invalid_argument
from serving.embedded.versions import VersionManager

log = logging.getLogger(__name__)


class ConfigReloader:
    """The one way by which a config gets to the version manager."""

    def __init__(self, manager: VersionManager) -> None:
        self._manager = manager
        self._last = ModelServerConfig()
        self._lock = threading.Lock()

    @property
    def last(self) -> ModelServerConfig:
        """The config that was asked for last."""
        return self._last

    def apply(self, config: ModelServerConfig) -> None:
        """Replace the config; returns when every model that is new in it has a version in memory.

        Raises:
            ServingError: the config is refused, or a new model did not load.
        """
        with self._lock:
            if not self._accept(config):
                return
            new = self._manager.configure(model_config.settings(config))
        self._manager.wait_until_available(new)  # not under the lock: it may take for ever, and another config end it

    def _accept(self, config: ModelServerConfig) -> bool:
        """Check the step from the last config to this one and remember this one; False for nothing to do."""
        kinds = self._last.WhichOneof("config"), config.WhichOneof("config")
        if kinds[0] is not None and kinds != ("model_config_list", "model_config_list"):
            raise ServingError(
                Code.FAILED_PRECONDITION,
                "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to "
                "another.",
            )
        if kinds[1] is None:
            log.info("Taking no action for empty config.")
            return False
        model_config.check_names_and_paths(config)
        before = {model.name: model_config.platform(model) for model in self._last.model_config_list.config}
        for model in config.model_config_list.config:
            if model.name in before and model_config.platform(model) != before[model.name]:
                raise invalid_argument(
                    f"Illegal to change a model's platform. For model {model.name} platform was {before[model.name]} "
                    f"and new platform requested is {model_config.platform(model)}"
                )
        self._last = config
        return True
