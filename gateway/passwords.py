"""Passwords: made at random, refused when weak, and hashed the way every nginx verifies.

Hashes are salted `apr1` (Apache's MD5): the static build and the official image both check it, and it costs
0.3 ms a request where bcrypt of cost 10 costs 50 ms and blocks the worker. That is enough for long random passwords,
which is why short and known ones are refused. The password from .env is known by its fingerprint, which costs less.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import string
from pathlib import Path

from gateway.errors import GatewayError

MIN_LENGTH = 12
MIN_LEFT = 8  # characters, once what weak_passwords.sed lists was taken out
_LETTERS = string.ascii_letters + string.digits
_ITOA64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_WEAK = Path(__file__).with_name("weak_passwords.sed")
# What shells, make, compose and .env readers all take as it stands: `. ./.env` must run nothing.
_PASSWORD = re.compile(r"[A-Za-z0-9%+,./:=@^_-]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


def generate(length: int = 32) -> str:
    """Return a random password of letters and digits (190 bits at 32)."""
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def check_name(name: str) -> None:
    """Raise GatewayError unless the user name is plain."""
    if not _NAME.fullmatch(name):
        raise GatewayError(
            f"user name {name!r}: use 1 to 64 letters, digits and . _ @ -, beginning with a letter or digit"
        )


def check_password(password: str, user: str) -> None:
    """Raise GatewayError if the password is empty, short, guessable, or not the same to every reader of .env."""
    advice = f"use at least {MIN_LENGTH} characters, best random ones, or leave it empty to have one made"
    if not password:
        raise GatewayError(f"the password of {user!r} is empty: {advice}")
    if len(password) < MIN_LENGTH:
        raise GatewayError(f"the password of {user!r} is too short ({len(password)} characters): {advice}")
    if not _PASSWORD.fullmatch(password):
        raise GatewayError(
            f"the password of {user!r} has signs that a shell or an .env file takes otherwise: "
            "use letters, digits and % + , . / : = @ ^ _ -"
        )
    if len(without_the_guessable(password, user)) < MIN_LEFT:
        raise GatewayError(
            f"the password of {user!r} is a known weak one, or made of a word, a run or a repetition: {advice}"
        )


def without_the_guessable(password: str, user: str) -> str:
    """Return what is left of a password without its user's name and what weak_passwords.sed takes out."""
    left = re.sub(re.escape(user), "", password, flags=re.IGNORECASE)
    for line in _WEAK.read_text().splitlines():
        if line.startswith("s/"):
            _, pattern, replacement, flags = line.split("/")
            left = re.sub(pattern, replacement, left, flags=re.IGNORECASE if "I" in flags else 0)
    return left


def fingerprint(user: str, password: str, salt: str) -> str:
    """Return what nginx's secure_link knows the credentials by: MD5 of salt and Authorization header, in base64url."""
    header = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    digest = hashlib.md5((salt + header).encode(), usedforsecurity=False).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def apr1(password: str, salt: str | None = None) -> str:
    """Return the `$apr1$` hash of a password (Apache's variant of md5-crypt)."""
    salt = salt or "".join(secrets.choice(_ITOA64) for _ in range(8))
    secret, pepper = password.encode(), salt.encode()
    inner = hashlib.md5(secret + pepper + secret, usedforsecurity=False).digest()
    text = secret + b"$apr1$" + pepper
    text += (inner * (len(secret) // 16 + 1))[: len(secret)]
    bits = len(secret)
    while bits:
        text += b"\0" if bits & 1 else secret[:1]
        bits >>= 1
    digest = hashlib.md5(text, usedforsecurity=False).digest()
    for turn in range(1000):
        text = secret if turn & 1 else digest
        text += pepper if turn % 3 else b""
        text += secret if turn % 7 else b""
        text += digest if turn & 1 else secret
        digest = hashlib.md5(text, usedforsecurity=False).digest()
    order = [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)]
    groups = [(digest[a] << 16 | digest[b] << 8 | digest[c], 4) for a, b, c in order] + [(digest[11], 2)]
    encoded = "".join(_ITOA64[value >> 6 * place & 63] for value, places in groups for place in range(places))
    return f"$apr1${salt}${encoded}"
