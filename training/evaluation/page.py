"""A report as one HTML file that needs nothing else: pictures inside, no script, light and dark as the reader's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from training.evaluation import explanations
from training.evaluation.corruptions import CORRUPTIONS
from training.evaluation.findings import findings
from training.evaluation.report import Evaluation
from training.evaluation.thumbnails import data_uri
from training.evaluation.wording import percent

CELL_PICTURES = 12  # at most, of one cell of the confusion matrix
ALL_CELL_PICTURES = 1500  # at most about so many, of all cells
MATRIX_CLASSES = 40  # up to so many, the matrix is a table; beyond, the picture and the list of confusions stay


def render(evaluation: Evaluation, described: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """The page.

    Args:
        evaluation: what to show.
        described: the version's manifest.
        pictures: data URIs by the name of the plot.

    Returns:
        HTML. Everything from data (class names above all) is escaped.
    """
    report, classes = evaluation.report, described["classes"]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("training.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "count": _count, "size": _size, "millions": _millions}
    return environment.get_template("index.html.j2").render(
        report=report,
        described=described,
        classes=classes,
        pictures={name: Markup(uri) for name, uri in pictures.items()},
        findings=findings(report),
        corruptions=CORRUPTIONS,
        matrix=_matrix(np.array(report["classification"]["confusion_matrix"]), len(classes)),
        cells=_cells(evaluation, classes),
        mistakes=_mistakes(evaluation, classes),
        label_errors=_label_errors(evaluation, classes),
        faithfulness=explanations.table(report["faithfulness"]) if report["faithfulness"] else None,
    )


def _matrix(confusion: np.ndarray, classes: int) -> list[list[dict[str, Any]]] | None:
    """The cells of the confusion matrix, row by row; None where there are too many."""
    if classes > MATRIX_CLASSES:
        return None
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    mistakes = np.where(np.eye(classes, dtype=bool), 0.0, shares)
    depth = np.sqrt(mistakes / max(mistakes.max(), 1e-9))  # so that the few are seen beside the many
    return [
        [
            {"images": int(confusion[row, column]), "share": shares[row, column], "depth": depth[row, column]}
            for column in range(classes)
        ]
        for row in range(classes)
    ]


def _cells(evaluation: Evaluation, classes: list[str]) -> list[dict[str, Any]]:
    """The pictures of every cell: of mistakes the most confident ones, of the diagonal the least confident."""
    labels, predicted = evaluation.test.labels, evaluation.probabilities.argmax(axis=1)
    confidence = evaluation.probabilities.max(axis=1)
    pairs, counts = np.unique(np.stack([labels, predicted], axis=1), axis=0, return_counts=True)
    shown = int(np.clip(ALL_CELL_PICTURES // len(pairs), 1, CELL_PICTURES))
    cells = []
    for (row, column), count in zip(pairs.tolist(), counts.tolist(), strict=True):
        members = np.flatnonzero((labels == row) & (predicted == column))
        order = np.argsort(confidence[members] if row == column else -confidence[members], kind="stable")
        cells.append(
            {
                "row": row,
                "column": column,
                "true": classes[row],
                "predicted": classes[column],
                "images": count,
                "pictures": [
                    {"uri": data_uri(evaluation.test.images[one]), "confidence": float(confidence[one])}
                    for one in members[order[:shown]]
                ],
            }
        )
    return cells


def _mistakes(evaluation: Evaluation, classes: list[str]) -> list[dict[str, Any]]:
    train = evaluation.training.train
    return [
        {
            "uri": data_uri(evaluation.test.images[row["index"]]),
            "true": classes[row["true"]],
            "predicted": classes[row["predicted"]],
            "confidence": row["confidence"],
            "position": row["position"],
            "neighbours": [
                {
                    "uri": data_uri(train.images[one["position"]]),
                    "label": classes[train.labels[one["position"]]],
                    "agrees": int(train.labels[one["position"]]) == row["predicted"],
                    "cosine": one["cosine"],
                }
                for one in row["neighbours"]
            ],
        }
        for row in evaluation.report["mistakes"]
    ]


def _label_errors(evaluation: Evaluation, classes: list[str]) -> list[dict[str, Any]]:
    found = evaluation.report["label_errors"]
    return [
        {
            "uri": data_uri(evaluation.test.images[row["index"]]),
            "label": classes[row["label"]],
            "suggested": classes[row["suggested"]],
            "probability": row["probability_of_label"],
            "position": row["position"],
        }
        for row in (found["likeliest"] if found else [])
    ]


def _count(value: float) -> str:
    return f"{value:,}"


def _size(value: float) -> str:
    return f"{value / 1e6:.1f} MB"


def _millions(value: float) -> str:
    return f"{value / 1e6:.2f} M"
