"""What the gateway is told by its environment, checked once."""

from __future__ import annotations

import ipaddress
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.credentials import DEFAULT_USER
from gateway.errors import GatewayError
from gateway.passwords import check_name, check_password
from gateway.users import USERS_FILE

LOGS = {"all": ("1", "1"), "errors": ("1", "0"), "off": ("0", "0")}  # what is logged: (failures, the rest)


@dataclass(frozen=True)
class Settings:
    """The gateway's configuration; every field is one environment variable of the same name in capitals."""

    gateway_user: str
    gateway_password: str
    gateway_cookie_secret: str
    gateway_bind: str = "127.0.0.1"
    gateway_port: int = 8080
    gateway_tls_port: int = 8443
    tls_cert: str = ""
    tls_key: str = ""
    serving_host: str = "127.0.0.1"
    serving_grpc_port: int = 8500
    serving_rest_port: int = 8501
    ui_host: str = "127.0.0.1"
    ui_port: int = 8502
    gateway_users_file: Path = USERS_FILE
    gateway_access_log: str = "errors"
    gateway_workers: str = "auto"
    gateway_timeout_s: int = 60
    gateway_max_connections: int = 2000  # from one address

    @property
    def tls(self) -> bool:
        """True when a certificate is configured."""
        return bool(self.tls_cert)

    @property
    def clear_bind(self) -> str:
        """Where the cleartext port listens: with TLS on this machine only."""
        return "127.0.0.1" if self.tls else self.gateway_bind

    @property
    def warning(self) -> str:
        """One line if passwords would cross a network in the clear, else empty."""
        if _is_loopback(self.clear_bind):
            return ""
        return (
            f"warning: GATEWAY_BIND={self.gateway_bind} without TLS sends passwords and pictures over the network "
            "in the clear: set TLS_CERT and TLS_KEY, or GATEWAY_BIND=127.0.0.1"
        )


def read(environ: Mapping[str, str]) -> Settings:
    """Return the settings of an environment (empty values count as absent).

    Raises:
        GatewayError: a value is missing or not usable; the message names the variable.
    """
    env = {name: value for name, value in environ.items() if value}
    user = env.get("GATEWAY_USER", DEFAULT_USER)
    password = env.get("GATEWAY_PASSWORD")
    if password is None:
        raise GatewayError("GATEWAY_PASSWORD is not set: run `python -m gateway credentials` once")
    check_name(user)
    check_password(password, user)
    ports = ("GATEWAY_PORT", "GATEWAY_TLS_PORT", "SERVING_GRPC_PORT", "SERVING_REST_PORT", "UI_PORT")
    counts = ("GATEWAY_TIMEOUT_S", "GATEWAY_MAX_CONNECTIONS")
    texts = ("GATEWAY_BIND", "SERVING_HOST", "UI_HOST")
    settings = Settings(
        gateway_user=user,
        gateway_password=password,
        gateway_cookie_secret=env.get("GATEWAY_COOKIE_SECRET") or secrets.token_hex(32),
        gateway_users_file=Path(env.get("GATEWAY_USERS_FILE", USERS_FILE)).resolve(),
        gateway_access_log=_one_of("GATEWAY_ACCESS_LOG", env.get("GATEWAY_ACCESS_LOG", "errors"), LOGS),
        gateway_workers=_workers(env.get("GATEWAY_WORKERS", "auto")),
        tls_cert=_readable_file("TLS_CERT", env),
        tls_key=_readable_file("TLS_KEY", env),
        **{name.lower(): _port(name, env[name]) for name in ports if name in env},
        **{name.lower(): _count(name, env[name]) for name in counts if name in env},
        **{name.lower(): _host(name, env[name]) for name in texts if name in env},
    )
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise GatewayError("TLS needs both TLS_CERT and TLS_KEY; only one is set")
    return settings


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _port(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 0 < int(value) < 65536:
        raise GatewayError(f"{name}={value}: expected a port between 1 and 65535")
    return int(value)


def _count(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise GatewayError(f"{name}={value}: expected a whole number of at least 1")
    return int(value)


def _host(name: str, value: str) -> str:
    if not all(letter.isalnum() or letter in ".:-_[]*" for letter in value):
        raise GatewayError(f"{name}={value}: expected a host name or an address")
    if value == "localhost":
        return "127.0.0.1"  # nginx asks DNS, which does not know this name
    try:
        return f"[{ipaddress.IPv6Address(value)}]"  # nginx reads a bare one as host:port
    except ValueError:
        return value


def _one_of(name: str, value: str, choices: Mapping[str, object]) -> str:
    if value not in choices:
        raise GatewayError(f"{name}={value}: expected one of {', '.join(choices)}")
    return value


def _workers(value: str) -> str:
    if value != "auto" and not (value.isdigit() and int(value) > 0):
        raise GatewayError(f"GATEWAY_WORKERS={value}: expected auto or a number")
    return value


def _readable_file(name: str, env: Mapping[str, str]) -> str:
    value = env.get(name, "")
    if value and not os.access(value, os.R_OK):
        raise GatewayError(f"{name}={value}: there is no such file, or it cannot be read")
    return str(Path(value).resolve()) if value else ""
