"""One version against another on the same images: McNemar's test (1947)."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.evaluation.wording import percent
from training.gate import mcnemar

LIKELY = 0.05  # p below which a difference is not put down to chance


def against(right: np.ndarray, other_right: np.ndarray, version: int | str) -> dict[str, Any]:
    """Compares which images each gets right.

    Args:
        right, other_right: bool (N,), of this version and of the other.
        version: the other's name.

    Returns:
        version, accuracy (the other's), only_this_right, only_other_right (images), mcnemar_p, verdict.
    """
    first, second = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    p = mcnemar(first, second)
    if p >= LIKELY:
        said = "the difference may be chance"
    else:
        said = "this version is better" if first > second else f"version {version} is better"
    return {
        "version": version,
        "accuracy": float(other_right.mean()),
        "only_this_right": first,
        "only_other_right": second,
        "mcnemar_p": p,
        "verdict": f"This version gets {percent(right.mean(), 2)} right, version {version} "
        f"{percent(other_right.mean(), 2)}; {first} images this one alone, {second} the other alone: {said} "
        f"(McNemar p = {p:.2g}).",
    }
