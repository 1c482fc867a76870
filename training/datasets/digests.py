"""SHA-256 of what a dataset was read from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def of_file(path: Path) -> str:
    """Of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_many(digests: Mapping[str, str]) -> str:
    """Of many files: over their names and digests, by name. `sha256sum` writes such lines."""
    lines = (f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def of_arrays(*arrays: np.ndarray) -> str:
    """Of arrays one after the other, in C order."""
    sha256 = hashlib.sha256()
    for array in arrays:
        sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()
