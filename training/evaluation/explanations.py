"""The explanations of a version: what they look like, and whether they are true to it (training.faithfulness)."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from training.datasets import Split
from training.evaluation.cache import digest_of
from training.evaluation.subject import Subject
from training.explanation.methods import METHODS, Method, installed
from training.explanation.sheet import Column, Row, draw
from training.faithfulness import all_candidates, measured
from training.versions import MODEL_FILE

FILE = "faithfulness.json"
CLASSES = 10  # shown, at most
SHAP_SAMPLES = 50


@dataclass(frozen=True)
class Sheet:
    """A row a class, a column a method."""

    rows: list[Row]
    columns: list[Column]
    title: str
    seen: str  # what stands over the images

    def figure(self) -> Figure:
        return draw(self.rows, self.columns, self.title, self.seen)


def sheets(subject: Subject, left_out: list[str]) -> dict[str, Sheet]:
    """`explanations`: of one test image of each class; `explanations_by_class`: the mean over some of each class.

    Args:
        subject: with a Keras model.
        left_out: gets a line where a method is not installed.
    """
    labels, count = subject.test.labels, subject.effort.explained
    shown = np.unique(labels)[:CLASSES]
    members = [np.flatnonzero(labels == one)[:count] for one in shown]
    chosen = np.concatenate(members)
    some = Split(subject.test.images[chosen], labels[chosen])
    columns = _columns(subject, some, left_out)
    firsts = np.cumsum([0, *map(len, members[:-1])])
    own = subject.probabilities[chosen, labels[chosen]]
    names = [subject.classes[one] for one in shown]
    ones = Sheet(
        [Row(some.images[at], (name, f"{own[at]:.0%}")) for at, name in zip(firsts, names, strict=True)],
        [Column(column.title, column.signed, column.maps[firsts]) for column in columns],
        "What speaks for the class? One test image of each, and how sure it is of the class",
        "test image",
    )
    groups = np.split(np.arange(len(chosen)), firsts[1:])
    means = Sheet(
        [
            Row(some.images[those].mean(axis=0), (name, f"mean of {len(those)}"))
            for those, name in zip(groups, names, strict=True)
        ],
        [
            Column(column.title, column.signed, np.stack([column.maps[those].mean(axis=0) for those in groups]))
            for column in columns
        ],
        "What speaks for the class, on average?",
        "mean image",
    )
    return {"explanations": ones, "explanations_by_class": means}


def _columns(subject: Subject, some: Split, left_out: list[str]) -> list[Column]:
    """What the service offers, Grad-CAM and the finer LayerCAMs, and SHAP."""
    version = subject.opened
    methods: list[tuple[Method, str | None]] = [(METHODS["grad_cam"], version.layers[0])]
    methods += [(METHODS["layer_cam"], layer) for layer in version.layers[1:]]
    there, advice = installed(["shap"])
    if subject.effort.shap:
        methods += [(METHODS[name], None) for name in there]
        left_out += [f"SHAP: {advice.removeprefix('left out: ')}"] if advice else []
    network = functools.cache(lambda: version.network(background=subject.effort.shap))

    def maps(entry: Method, layer: str | None) -> np.ndarray:
        options = {"samples": SHAP_SAMPLES} if entry.name == "shap" else {}
        images = version.to_model(some.images)
        return entry.function(network().at(layer), images, some.labels, **options)

    return [
        Column(
            f"{entry.title}\n{layer}" if layer else entry.title.replace(" ", "\n"),
            entry.signed,
            subject.cache.array(
                "explanations",
                {"method": entry.name, "layer": layer, "images": digest_of(some), "samples": SHAP_SAMPLES},
                functools.partial(maps, entry, layer),
            ),
        )
        for entry, layer in tqdm(methods, desc="explaining", unit="method", disable=not sys.stderr.isatty())
    ]


def faithfulness(subject: Subject, directory: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Whether the explanations are true: measured now where the effort is for it, else what was found before.

    Args:
        subject: the version.
        directory: of the report, where training.faithfulness leaves what it finds.

    Returns:
        As `read`.
    """
    images = subject.effort.faithfulness_images
    if images and subject.model_file.is_file():
        measured(subject.opened, all_candidates(subject.opened), images, directory)
    return read(directory, subject.described)


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
