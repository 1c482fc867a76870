"""Everything in containers: Docker's compose with the files and settings of this installation."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from gateway.errors import GatewayError
from gateway.settings import Settings

_ROOT = Path(__file__).resolve().parent.parent
_WITH_TLS = ("-f", "docker-compose.yml", "-f", "gateway/docker-compose.tls.yml")


def start(settings: Settings, environ: Mapping[str, str], announce: Callable[[str], None]) -> NoReturn:
    """Become `docker compose up`, which builds, starts, and returns when all is healthy.

    Args:
        settings: what the environment says, checked.
        environ: the environment completed by `.env`; compose's own reading of it might differ.
        announce: prints one line.

    Raises:
        GatewayError: docker is not there.
    """
    command = ["docker", "compose", *(_WITH_TLS if settings.tls else ()), "up", "--build", "--wait"]
    if settings.warning:
        announce(f"gateway: {settings.warning}")
    announce(" ".join(command))
    os.chdir(_ROOT)
    try:
        os.execvpe(command[0], command, {**environ, "TLS_CERT": settings.tls_cert, "TLS_KEY": settings.tls_key})
    except OSError as error:
        raise GatewayError(f"cannot run docker ({error.strerror}): install Docker and its compose plugin") from None
