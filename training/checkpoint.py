"""Checkpoints of a run: one .npz, replaced atomically, that any backend reads."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import keras
import numpy as np


@dataclass
class Progress:
    """Where a run stands."""

    epoch: int = 0  # epochs finished, over both phases
    best_accuracy: float = -1.0  # validation accuracy of the best epoch at the served resolution
    best_epoch: int = 0
    initial_weights: str = ""  # where the backbone's initial weights came from
    teachers: list[str] = field(default_factory=list)  # which versions they are
    phase: str = ""  # the optimizer's state belongs to this phase
    lowest_loss: float = float("inf")  # validation loss, for the learning rate on a plateau
    epochs_since_lowest: int = 0
    keras_backend: str = field(default_factory=keras.backend.backend)  # that the run began with
    metrics: dict[str, float] = field(default_factory=dict)


def save(path: Path, progress: Progress, weights: list[np.ndarray], optimizer_state: list[np.ndarray]) -> None:
    """Writes weights, optimizer state (empty for none) and progress; a kill leaves the old file or the new one."""
    arrays = {f"weight_{i}": value for i, value in enumerate(weights)}
    arrays |= {f"optimizer_{i}": value for i, value in enumerate(optimizer_state)}
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, progress=np.array(json.dumps(asdict(progress))), **arrays)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load(path: Path) -> tuple[Progress, list[np.ndarray], list[np.ndarray]]:
    """Reads a checkpoint: progress, the model's weights, the optimizer's variables (empty if it had none)."""
    with np.load(path) as archive:
        progress = Progress(**json.loads(str(archive["progress"])))
        return progress, _numbered(archive, "weight_"), _numbered(archive, "optimizer_")


def _numbered(archive: np.lib.npyio.NpzFile, prefix: str) -> list[np.ndarray]:
    count = sum(name.startswith(prefix) for name in archive.files)
    return [archive[f"{prefix}{i}"] for i in range(count)]
