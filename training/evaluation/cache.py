"""Results on disk, under a key of all that they hang on: a second run is fast, an interrupted one goes on."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets import Split

FORMAT = 2  # to be raised when a part computes something else from the same


class Cache:
    """A folder of results.

    Args:
        directory: made when there is something to keep.
        common: what every result hangs on, such as the hashes of the version's files and of the images.

    Example:
        >>> Cache(Path("reports/x/1/cache"), version="ab12").figures("sum", {"of": [1, 2]}, lambda: 3)
        3
    """

    def __init__(self, directory: Path, **common: str):
        self._directory = directory
        self._common = common

    def figures(self, name: str, parameters: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """What `compute` returns, now or some time ago: anything that JSON can hold."""
        path = self._path(name, parameters, "json")
        if not path.is_file():
            self._write(path, json.dumps(compute()).encode())
        return json.loads(path.read_bytes())

    def array(self, name: str, parameters: Mapping[str, Any], compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The array that `compute` returns, now or some time ago."""
        path = self._path(name, parameters, "npy")
        if not path.is_file():
            self._write(path, compute())
        return np.load(path)

    def _path(self, name: str, parameters: Mapping[str, Any], suffix: str) -> Path:
        of_all = json.dumps([FORMAT, self._common, parameters], sort_keys=True)
        return self._directory / f"{name}-{hashlib.sha256(of_all.encode()).hexdigest()[:16]}.{suffix}"

    def _write(self, path: Path, content: bytes | np.ndarray) -> None:
        """Writes beside and renames: what is there under its name is whole."""
        self._directory.mkdir(parents=True, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(dir=self._directory, prefix=".unfinished-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    np.save(file, content)
            Path(unfinished).replace(path)
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise


def digest_of(*splits: Split) -> str:
    """SHA-256 of images and labels."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(str(split.images.shape).encode())
        digest.update(np.ascontiguousarray(split.images))
        digest.update(split.labels.astype("<i8"))
    return digest.hexdigest()
