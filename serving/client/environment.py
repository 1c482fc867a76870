"""Where to send requests and as whom: options, then the environment, then the `.env` that the gateway wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from serving.client.transport import is_loopback

DEFAULT_PORT = "8080"
DEFAULT_REST_PORT = "8501"
DEFAULT_GRPC_PORT = "8500"
DEFAULT_MODEL = "fashion_mnist"


@dataclass(frozen=True)
class Connection:
    """Address, credentials and model of a call."""

    url: str
    user: str | None
    password: str | None = field(repr=False)
    model: str


def gateway_url(settings: Mapping[str, str]) -> str:
    """The gateway's address on this machine, by GATEWAY_BIND, GATEWAY_PORT and TLS_CERT; empty counts as unset.

    Loopback where it listens everywhere, and where it has a certificate: in the clear it then listens only there.
    """
    host = ("" if settings.get("TLS_CERT") else settings.get("GATEWAY_BIND", "")).strip("[]") or "127.0.0.1"
    host = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.get('GATEWAY_PORT') or DEFAULT_PORT}"


def env_folders() -> list[Path]:
    """Where a command looks for `.env`: the current folder, then the checkout."""
    return [Path.cwd(), Path(__file__).resolve().parents[2]]


def read_env_file(path: Path) -> dict[str, str]:
    """Variables of a `.env`: NAME=value a line, with or without quotes; `#` starts a comment line. Absent: none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    variables = {}
    for line in lines:
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            value = value.strip()
            quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
            variables[name.strip()] = value[1:-1] if quoted else value
    return variables


def connection(
    environment: Mapping[str, str],
    folders: Sequence[Path],
    *,
    url: str | None = None,
    user: str | None = None,
    model: str | None = None,
) -> Connection:
    """Settle address, credentials and model.

    Args:
        environment: SERVING_URL, what `gateway_url` takes, GATEWAY_USER, GATEWAY_PASSWORD, MODEL_NAME, and
            VITRINE_ENV_FILE, which names another file in place of `.env`; empty counts as unset.
        folders: where a `.env` may lie; the first that has one counts.
        url, user, model: what was asked for; None leaves it to the environment.

    Returns:
        The connection, without credentials where there is no password and no user was asked for. The `.env`'s password
        goes to this machine or to the `.env`'s own SERVING_URL only: another address needs GATEWAY_PASSWORD.

    Raises:
        ValueError: a user was asked for and there is no password.
    """
    file = _env_file(environment, folders)

    def setting(name: str) -> str | None:
        return environment.get(name) or file.get(name) or None

    here = gateway_url(file | {name: value for name, value in environment.items() if value})
    address = url or setting("SERVING_URL") or here
    password = environment.get("GATEWAY_PASSWORD") or None
    if password is None and (address == here or _belongs_to(address, file)):
        password = file.get("GATEWAY_PASSWORD") or None
    if password is None and user is not None:
        raise ValueError(f"no password for user {user}: set GATEWAY_PASSWORD, or run where the gateway's .env is")
    name = user or setting("GATEWAY_USER")
    if name is None or password is None:
        name = password = None
    return Connection(address, name, password, model or setting("MODEL_NAME") or DEFAULT_MODEL)


def model_server(environment: Mapping[str, str], folders: Sequence[Path]) -> tuple[str, str]:
    """Where the model server behind the gateway listens on this machine: its REST and its gRPC address."""
    file = _env_file(environment, folders)
    rest, grpc = (
        environment.get(name) or file.get(name) or default
        for name, default in (("SERVING_REST_PORT", DEFAULT_REST_PORT), ("SERVING_GRPC_PORT", DEFAULT_GRPC_PORT))
    )
    return f"http://127.0.0.1:{rest}", f"http://127.0.0.1:{grpc}"


def _env_file(environment: Mapping[str, str], folders: Sequence[Path]) -> dict[str, str]:
    named = environment.get("VITRINE_ENV_FILE")
    files = [Path(named)] if named else [folder / ".env" for folder in folders]
    return next((found for file in files if (found := read_env_file(file))), {})


def _belongs_to(url: str, file: Mapping[str, str]) -> bool:
    return is_loopback(url) or urlsplit(url).netloc == urlsplit(file.get("SERVING_URL", "")).netloc
