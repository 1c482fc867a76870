"""How fast and how large: latency of the served signature by batch size, multiply-accumulates, parameters, bytes."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from training.cost import macs, parameters, weight_bytes
from training.evaluation.served import Served

WARM_UP = 2  # calls


def latencies(served: Served, encoded: Sequence[bytes], batch_sizes: Sequence[int], calls: int) -> list[dict[str, Any]]:
    """How long `serving_default` takes in this process.

    Args:
        encoded: images, PNG each.
        batch_sizes: how many images a call.
        calls: how many of each size.

    Returns:
        batch, median_ms, p95_ms, images_per_s (by the median), a batch size each.
    """
    rows = []
    for size in tqdm(batch_sizes, desc="timing", unit="batch size", disable=not sys.stderr.isatty()):
        batch = tf.constant([encoded[number % len(encoded)] for number in range(size)])
        times = []
        for call in range(WARM_UP + calls):
            started = time.perf_counter()
            served.signature(image_bytes=batch)["class_id"].numpy()
            if call >= WARM_UP:
                times.append(time.perf_counter() - started)
        median, high = np.quantile(times, [0.5, 0.95])
        rows.append(
            {"batch": size, "median_ms": 1e3 * median, "p95_ms": 1e3 * high, "images_per_s": float(size / median)}
        )
    return rows


def machine() -> dict[str, Any]:
    """What the times were taken on."""
    return {"cores": os.cpu_count(), "architecture": platform.machine(), "system": platform.system()}


def cost(model: keras.Model) -> dict[str, int]:
    """Multiply-accumulates of an image, parameters, and bytes of weights (training.cost)."""
    return {"macs": macs(model), "parameters": parameters(model), "weight_bytes": weight_bytes(model)}


def file_bytes(version_dir: Path) -> dict[str, int]:
    """The size of a version on disk: of what is served, and of all."""
    sizes = {path.relative_to(version_dir): path.stat().st_size for path in version_dir.rglob("*") if path.is_file()}
    served = sum(size for path, size in sizes.items() if path.parts[0] != "assets.extra")
    return {"served": served, "all": sum(sizes.values())}
