"""Further users: an htpasswd file that nginx reads anew on every request.

The user of `.env` is not in it; the gateway puts that one into its private run directory at each start. The file is
of mode 0644, since nginx's workers (another user when started by root, and in the container, where mounted files keep
the host's owner) must read it: an unreadable one answers 500 to everything. It holds salted hashes of long passwords.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gateway.errors import GatewayError
from gateway.passwords import apr1, check_name, check_password, generate

USERS_FILE = Path(__file__).resolve().parent / "users" / "htpasswd"


def names(path: Path) -> list[str]:
    """Return the users of the file, in its order."""
    return list(_read(path))


def add(path: Path, name: str, password: str | None = None) -> str:
    """Add a user or give one another password; return the password (a random one if none was given)."""
    password = generate() if password is None else password
    check_name(name)
    check_password(password, name)
    with _changing(path) as users:
        users[name] = apr1(password)
    return password


def remove(path: Path, name: str) -> None:
    """Remove a user; the next request with that name is refused.

    What nginx does not ask again stays: a page that is open keeps its websocket until it is closed or the gateway ends,
    and the cookie of a page load (gateway/conf/gateway.js) opens another one for up to 600 s. A new
    GATEWAY_COOKIE_SECRET and a restart end both at once.
    """
    with _changing(path) as users:
        if name not in users:
            raise GatewayError(f"no user {name!r} in {path}; `python -m gateway users list` shows who there is")
        del users[name]


def touch(path: Path) -> None:
    """Create the file if it is not there: nginx answers 403 where a users file is missing."""
    with _changing(path):
        pass


def _read(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[dict[str, str]]:
    """Read, let the caller change, replace in one step; one process at a time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.parent / f".{path.name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = _read(path)
            users = dict(before)
            yield users
            if users != before or not path.exists():
                _replace(path, "".join(f"{name}:{digest}\n" for name, digest in users.items()))
    except OSError as error:
        raise GatewayError(f"cannot change {path}: {error.strerror}") from None


def _replace(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o644)
    os.replace(temporary, path)
