"""Settings of the page, from the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Settings:
    """Where the page sends its requests, as whom, and which model it asks for.

    Attributes:
        url, user, password: of the gateway.
        model: name of the model.
        model_config_file: the model server's config file, which says what models there are; None where none is named.
        label: the label whose version is asked; None for the latest.
    """

    url: str
    user: str | None
    password: str | None = field(repr=False)
    model: str
    model_config_file: str | None = None
    label: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read SERVING_URL, GATEWAY_PORT, GATEWAY_USER, GATEWAY_PASSWORD, MODEL_NAME and MODEL_CONFIG_FILE.

        An empty one counts as unset.

        Returns:
            The settings; without SERVING_URL requests go to the gateway on this machine.
        """
        port = environment.get("GATEWAY_PORT") or "8080"
        return cls(
            url=environment.get("SERVING_URL") or f"http://127.0.0.1:{port}",
            user=environment.get("GATEWAY_USER") or None,
            password=environment.get("GATEWAY_PASSWORD") or None,
            model=environment.get("MODEL_NAME") or "fashion_mnist",
            model_config_file=environment.get("MODEL_CONFIG_FILE") or None,
        )
