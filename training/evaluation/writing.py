"""Writes a report's folder: report.json, MODEL_CARD.md, the pictures as PNG and SVG, and index.html."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tqdm import tqdm

from training.evaluation import card, data, data_plots, page, plots
from training.evaluation.report import Evaluation
from training.style import data_uri_for_page, save

SAMPLES = 10  # images a class
FAITHFULNESS = "faithfulness.svg"  # the picture that training.faithfulness leaves in the folder


def write_report(evaluation: Evaluation, described: Mapping[str, Any], directory: Path) -> None:
    """Writes everything; what is there of an earlier run is replaced.

    Args:
        evaluation: what was found.
        described: the version's manifest.
        directory: of the report, made if missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / "report.json", json.dumps(evaluation.report, indent=2, ensure_ascii=False))
    _write(directory / "MODEL_CARD.md", card.render(described, evaluation.report))
    drawn = {}
    wanted = _plots(evaluation, described["classes"])
    for name, draw in tqdm(wanted.items(), desc="drawing", unit="picture", disable=not sys.stderr.isatty()):
        save(draw(), directory / name)
        drawn[name] = data_uri_for_page(directory / f"{name}.svg")
    if evaluation.report["faithfulness"] and (directory / FAITHFULNESS).is_file():
        drawn["faithfulness"] = data_uri_for_page(directory / FAITHFULNESS)
    _write(directory / "index.html", page.render(evaluation, described, drawn))


def _plots(evaluation: Evaluation, classes: list[str]) -> dict[str, Callable[[], Figure]]:
    """What draws each picture, by its name."""
    report, train = evaluation.report, evaluation.training.train
    figures, facts = report["classification"], report["data"]
    samples = [train.images[those] for those in data.samples(train.labels, len(classes), SAMPLES)]
    means = data.mean_images(train, len(classes))
    wanted = {
        "confusion_matrix": lambda: plots.confusion(figures),
        "confusion_matrix_normalised": lambda: plots.confusion(figures, normalised=True),
        "class_scores": lambda: plots.class_scores(figures),
        "class_bias": lambda: plots.class_bias(report["bias"]),
        "reliability": lambda: plots.reliability(report["calibration"]),
        "robustness": lambda: plots.robustness(report["robustness"]),
        "robustness_by_class": lambda: plots.robustness_by_class(report["robustness"]),
        "latency": lambda: plots.latency(report["speed"]["latency"]),
        "class_balance": lambda: data_plots.class_balance(facts["counts"]),
        "samples": lambda: data_plots.samples(samples, means, classes),
        "pixels": lambda: data_plots.pixels(facts["pixels"]),
    }
    wanted |= {name: sheet.figure for name, sheet in evaluation.sheets.items()}
    if all(evaluation.planes.values()):
        wanted["planes"] = lambda: data_plots.planes(evaluation.planes, evaluation.plane_labels, classes)
    return wanted


def _write(path: Path, text: str) -> None:
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
