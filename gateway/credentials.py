"""The credentials of this installation, made once and kept in `.env`."""

from __future__ import annotations

import secrets
from pathlib import Path

from gateway import dotenv
from gateway.errors import GatewayError
from gateway.passwords import check_name, check_password, generate

DEFAULT_USER = "vitrine"
_HEADER = "# Made by `python -m gateway credentials`. Keep it private; see .env.example for what else may stand here.\n"


def ensure(path: Path = dotenv.ENV_FILE) -> str:
    """Create or complete the `.env` file and return one line that says what was done.

    Lines that are there stay; only missing or empty values are filled in. The file is of mode 0600 afterwards.

    Raises:
        GatewayError: a user name or password in the file is not acceptable, or the file cannot be written.
    """
    try:
        while True:
            text = path.read_text() if path.exists() else None
            done = _complete(path, text)
            if done:
                return done
    except OSError as error:
        raise GatewayError(f"cannot write {path}: {error.strerror}") from None


def _complete(path: Path, text: str | None) -> str | None:
    """Write what is missing; None if another process created the file meanwhile."""
    known = dotenv.parse(text or "")
    user = known.get("GATEWAY_USER") or DEFAULT_USER
    made = {
        "GATEWAY_USER": user,
        "GATEWAY_PASSWORD": known.get("GATEWAY_PASSWORD") or generate(),
        "GATEWAY_COOKIE_SECRET": known.get("GATEWAY_COOKIE_SECRET") or secrets.token_hex(32),
    }
    check_name(user)
    check_password(made["GATEWAY_PASSWORD"], user)
    missing = {name: value for name, value in made.items() if not known.get(name)}
    if text is None:
        written = dotenv.write_private(path, dotenv.complete(_HEADER, missing), replace=False)
        return (
            f"credentials: made user {user!r} and a random password in {path} (readable only by you)"
            if written
            else None
        )
    if missing:
        dotenv.write_private(path, dotenv.complete(text, missing), replace=True)
        return f"credentials: completed {path} ({', '.join(missing)})"
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
        return f"credentials: {path} was readable by others, now only by you"
    return f"credentials: user {user!r}, password in {path}"
