"""Whether explanations are true to a version: what training.faithfulness left beside the report, as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.evaluation.features import MODEL_FILE

FILE = "faithfulness.json"


def read(directory: Path, described: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
    """What was found for this version.

    Args:
        directory: of the report.
        described: the version's manifest.

    Returns:
        The content of faithfulness.json, and a line that says why not, where it is not there or of another model.
    """
    path = directory / FILE
    command = f"python -m training.faithfulness --name {described['name']} --version {described['version']}"
    if not path.is_file():
        return None, f"How true the explanations are: not measured yet; {command}"
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["model_sha256"] != described["files"].get(MODEL_FILE.as_posix()):
        return None, f"How true the explanations are: {path} is of another model; measure again: {command}"
    return found, None


def table(found: Mapping[str, Any]) -> dict[str, Any]:
    """Methods by metrics, as text.

    Args:
        found: the content of faithfulness.json.

    Returns:
        images; metrics: names; rows: title, layer, whether it is a `reference` (no explanation), whether it is the
        `best` of its layer, and its cells; best: method titles by layer.
    """
    methods = found["methods"]
    metrics = list(dict.fromkeys(name for one in methods.values() for name in one["metrics"]))
    best = set(found["best"].values())
    return {
        "images": found["images"],
        "metrics": [name.replace("_", " ") for name in metrics],
        "rows": [
            {
                "title": one["title"],
                "layer": one["layer"] or "",
                "reference": one["reference"],
                "best": key in best,
                "cells": [_cell(one["metrics"].get(name)) for name in metrics],
            }
            for key, one in methods.items()
        ],
        "best": {layer: methods[key]["title"] for layer, key in found["best"].items()},
    }


def _cell(value: Mapping[str, float] | None) -> str:
    return "" if value is None else f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
