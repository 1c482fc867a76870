"""How robust: accuracy on corrupted test images, and the classes that suffer most."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from training.datasets import Split, png
from training.evaluation.cache import Cache
from training.evaluation.classification import wilson_interval
from training.evaluation.corruptions import CORRUPTIONS, encoded
from training.evaluation.served import Served

WORST = 10
SMALL_GROUP = 10  # images of a class below which it is not ranked


def robustness(served: Served, subset: Split, classes: Sequence[str], cache: Cache) -> dict[str, Any]:
    """Asks the version about every corruption of the images at every strength; each answer is kept.

    Args:
        subset: test images, some of every class.

    Returns:
        What `summary` says.
    """
    steps = [(name, strength) for name, one in CORRUPTIONS.items() for strength in one.strengths]
    images, labels = subset.images, subset.labels
    untouched = cache.figures(
        "robustness", {"images": len(labels)}, lambda: served.ask([png(image) for image in images], "class_id").tolist()
    )
    predicted: dict[str, dict[float, np.ndarray]] = {}
    for name, strength in tqdm(steps, desc="corrupting", unit="corruption", disable=not sys.stderr.isatty()):
        found = cache.figures(
            "robustness",
            {"images": len(labels), "corruption": name, "strength": strength},
            lambda name=name, strength=strength: served.ask(encoded(name, strength, images), "class_id").tolist(),
        )
        predicted.setdefault(name, {})[strength] = np.array(found)
    return summary(labels, np.array(untouched), predicted, classes)


def summary(
    labels: np.ndarray,
    untouched: np.ndarray,
    predicted: dict[str, dict[float, np.ndarray]],
    classes: Sequence[str],
) -> dict[str, Any]:
    """The figures.

    Args:
        labels: int (N,), the truth.
        untouched: int (N,), what is answered to the images as they are.
        predicted: the answers by corruption and strength, int (N,) each.
        classes: their names.

    Returns:
        images; accuracy, accuracy_wilson_95: untouched.
        mean_accuracy: over all corruptions, every strength of one counting alike.
        curves: by corruption, points of strength, accuracy, accuracy_wilson_95.
        per_class: by class name, its accuracy untouched and by corruption (mean over strengths); classes without
            images are left out.
        worst_groups: class, corruption, accuracy, untouched; those with the lowest accuracy first.
    """
    right = untouched == labels
    curves = {
        name: [{"strength": strength} | _accuracy(answer == labels) for strength, answer in by_strength.items()]
        for name, by_strength in predicted.items()
    }
    members = {name: labels == number for number, name in enumerate(classes) if (labels == number).any()}
    corrupted = {
        name: np.mean([answer == labels for answer in by_strength.values()], axis=0)
        for name, by_strength in predicted.items()
    }
    per_class = {
        label: {"untouched": float(right[those].mean())}
        | {name: float(values[those].mean()) for name, values in corrupted.items()}
        for label, those in members.items()
    }
    groups = [
        {"class": label, "corruption": name, "accuracy": row[name], "untouched": row["untouched"]}
        for label, row in per_class.items()
        for name in predicted
        if members[label].sum() >= SMALL_GROUP
    ]
    return {
        "images": len(labels),
        **_accuracy(right),
        "mean_accuracy": float(np.mean([values.mean() for values in corrupted.values()])),
        "curves": curves,
        "per_class": per_class,
        "worst_groups": sorted(groups, key=lambda group: group["accuracy"])[:WORST],
    }


def _accuracy(right: np.ndarray) -> dict[str, Any]:
    return {
        "accuracy": float(right.mean()),
        "accuracy_wilson_95": list(wilson_interval(int(right.sum()), len(right))),
    }
