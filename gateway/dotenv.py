"""The `.env` file: read it, and add what is missing without ever showing it to others."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

ENV_FILE = Path(os.environ.get("VITRINE_ENV_FILE") or Path(__file__).resolve().parent.parent / ".env")


def parse(text: str) -> dict[str, str]:
    """Return the variables of a `.env` text; comments and lines without `=` are skipped."""
    variables = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not equals or name.startswith("#"):
            continue
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        variables[name.strip()] = value
    return variables


def load(path: Path = ENV_FILE, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment completed by the file; what the environment sets wins."""
    variables = parse(path.read_text()) if path.exists() else {}
    return {**variables, **{name: value for name, value in environ.items() if value or name not in variables}}


def complete(text: str, missing: Mapping[str, str]) -> str:
    """Return the text with the missing values filled in: in place where the name stands empty, else at the end."""
    rest = dict(missing)
    lines = []
    for line in text.splitlines():
        name = line.partition("=")[0].strip()
        lines.append(f"{name}={rest.pop(name)}" if "=" in line and name in rest else line)
    lines += [f"{name}={value}" for name, value in rest.items()]
    return "\n".join(lines) + "\n"


def write_private(path: Path, text: str, *, replace: bool) -> bool:
    """Write a whole file of mode 0600 in one step; False if it exists and must not be replaced.

    The text is written to a temporary name of mode 0600 (O_EXCL) and then moved: nobody sees half a file,
    and the file is readable for others at no moment.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
            return True
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        return True
    finally:
        Path(temporary).unlink(missing_ok=True)
