"""The figures of a report, part by part: measures a version, or takes what was found before."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from training import manifest
from training.datasets import Source, Split, TrainingData, png
from training.evaluation import data as of_data
from training.evaluation import explanations, projection, speed
from training.evaluation.against import against
from training.evaluation.bias import class_bias
from training.evaluation.classification import confusion_matrix, confusions, metrics, of_probabilities
from training.evaluation.mistakes import confident_mistakes, directions, likely_label_errors, nearest
from training.evaluation.reliability import reliability
from training.evaluation.robustness import robustness
from training.evaluation.served import Served
from training.evaluation.subject import Effort, Subject

MISTAKES, NEIGHBOURS, LABEL_ERRORS = 24, 5, 24  # shown


@dataclass(frozen=True)
class Evaluation:
    """The figures, and the images that they are about."""

    report: dict[str, Any]  # as in report.json
    training: TrainingData
    test: Split  # the test images that were used
    probabilities: np.ndarray  # float32 (N, C), of `test`
    planes: dict[str, dict[str, np.ndarray]]  # points float32 (N, 2) by what, then by method; see `projection`
    plane_labels: np.ndarray  # int64 (N,)
    sheets: dict[str, explanations.Sheet]  # by the name of the picture; none without a Keras model


def evaluate_version(
    version_dir: Path, source: Source, effort: Effort, directory: Path, other_dir: Path | None = None
) -> Evaluation:
    """Evaluates a version; what was found before, of the same files and images, is taken from where it was kept.

    Args:
        version_dir: a version directory.
        source: its data.
        effort: FULL or QUICK.
        directory: of the report; what was found is kept in its folders `cache` and `faithfulness`.
        other_dir: a version to compare with.

    Raises:
        DataError: the data are not there, or of other classes than the version's, or the other version's.
        FileNotFoundError: no manifest.
    """
    subject = Subject(version_dir, source, effort, directory / "cache")
    left_out = _without_model(subject)
    faithfulness, why_not = explanations.faithfulness(subject, directory)
    left_out += [] if why_not is None else [why_not]
    report = {
        "name": subject.described["name"],
        "version": subject.described["version"],
        "effort": asdict(effort),
        "test_images": {"used": len(subject.test), "of": len(subject.whole_test)},
        **_answers(subject),
        "against": None if other_dir is None else _against(subject, other_dir),
        "robustness": robustness(
            subject.served, subject.subset(effort.corrupted_images), subject.classes, subject.cache
        ),
        "mistakes": _mistakes(subject),
        "label_errors": _label_errors(subject, left_out),
        "faithfulness": faithfulness,
        "speed": _speed(subject),
        "data": _data(subject),
        "left_out": left_out,
    }
    some = subject.subset(effort.points)
    planes = _planes(subject, some, left_out)
    sheets = explanations.sheets(subject, left_out) if subject.model_file.is_file() else {}
    return Evaluation(report, subject.training, subject.test, subject.probabilities, planes, some.labels, sheets)


def _without_model(subject: Subject) -> list[str]:
    if subject.model_file.is_file():
        return []
    return [
        "Neighbours, multiply-accumulates, explanations and the plane of features need "
        f"{subject.model_file}, which is not there: "
        "expected the Keras model of training.export; export the version again."
    ]


def _answers(subject: Subject) -> dict[str, Any]:
    """What the answers to the test images say: classification, bias, calibration."""
    labels, probabilities, classes = subject.test.labels, subject.probabilities, subject.classes
    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), len(classes))
    calibration = subject.described.get("calibration", {})
    return {
        "classification": metrics(confusion, classes)
        | of_probabilities(probabilities, labels, classes)
        | {"confusions": confusions(confusion, classes)},
        "bias": class_bias(confusion, classes),
        "calibration": reliability(probabilities, labels, calibration.get("temperature")) | {"validation": calibration},
    }


def _against(subject: Subject, other_dir: Path) -> dict[str, Any]:
    manifest.check_classes(
        subject.classes, manifest.read(other_dir)["classes"], subject.version_dir, f"version {other_dir.name}"
    )
    right, other_right = (
        answered.argmax(axis=1) == subject.test.labels
        for answered in (subject.probabilities, subject.probabilities_of(Served(other_dir)))
    )
    return against(right, other_right, other_dir.name)


def _mistakes(subject: Subject) -> list[dict[str, Any]]:
    """The most confident mistakes: where among the test images, as what, and the training images nearest to each."""
    test, probabilities = subject.test, subject.probabilities
    wrong = confident_mistakes(probabilities, test.labels, MISTAKES)
    rows = [
        {
            "position": int(subject.positions[one]),
            "index": int(one),
            "true": int(test.labels[one]),
            "predicted": int(probabilities[one].argmax()),
            "confidence": float(probabilities[one].max()),
            "neighbours": [],
        }
        for one in wrong
    ]
    if not len(wrong) or not subject.model_file.is_file():
        return rows
    positions, candidates = subject.candidates()
    queries = subject.features(Split(test.images[wrong], test.labels[wrong]), "mistakes")
    near, cosines = nearest(queries, candidates, NEIGHBOURS)
    for row, those, values in zip(rows, positions[near].tolist(), cosines.tolist(), strict=True):
        row["neighbours"] = [{"position": one, "cosine": value} for one, value in zip(those, values, strict=True)]
    return rows


def _label_errors(subject: Subject, left_out: list[str]) -> dict[str, Any] | None:
    labels, probabilities = subject.test.labels, subject.probabilities
    if len(np.unique(labels)) < len(subject.classes):
        left_out.append("Likely label errors: expected test images of every class; some have none.")
        return None
    try:
        found = subject.cache.figures("label-errors", {}, lambda: likely_label_errors(probabilities, labels).tolist())
    except ImportError as error:
        left_out.append(f"{error}.")
        return None
    shown = [
        {
            "position": int(subject.positions[one]),
            "index": int(one),
            "label": int(labels[one]),
            "suggested": int(probabilities[one].argmax()),
            "probability_of_label": float(probabilities[one, labels[one]]),
        }
        for one in found[:LABEL_ERRORS]
    ]
    return {"images": len(found), "share": len(found) / len(labels), "likeliest": shown}


def _speed(subject: Subject) -> dict[str, Any]:
    machine, effort = speed.machine(), subject.effort
    key = {"machine": machine, "batch_sizes": effort.batch_sizes, "calls": effort.calls}
    encoded = [png(image) for image in subject.test.images[: max(effort.batch_sizes)]]
    return {
        "machine": machine,
        "latency": subject.cache.figures(
            "latency", key, lambda: speed.latencies(subject.served, encoded, effort.batch_sizes, effort.calls)
        ),
        "cost": subject.cache.figures("cost", {}, lambda: speed.cost(subject.opened.model))
        if subject.model_file.is_file()
        else None,
        "files": speed.file_bytes(subject.version_dir),
    }


def _data(subject: Subject) -> dict[str, Any]:
    training = subject.training
    splits = {"train": training.train, "validation": training.validation, "test": subject.whole_test}
    found = subject.cache.figures("data", {}, lambda: of_data.describe(splits, subject.classes))
    return found | {"facts": dict(training.facts)}


def _planes(subject: Subject, some: Split, left_out: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """Images as points, by their pixels and by the model's features, with each method that is installed."""
    vectors = {"Pixels": lambda: projection.pixel_vectors(some.images)}
    if subject.model_file.is_file():
        vectors["Features of the model"] = lambda: directions(subject.features(some, "test images"))
    steps = [(what, method) for method in subject.effort.methods for what in vectors]
    planes: dict[str, dict[str, np.ndarray]] = {what: {} for what in vectors}
    missing = []
    for what, method in tqdm(steps, desc="projecting", unit="plane", disable=not sys.stderr.isatty()):
        try:
            planes[what][method] = subject.cache.array(
                "plane",
                {"what": what, "method": method, "images": len(some)},
                lambda what=what, method=method: projection.METHODS[method](vectors[what]()),
            )
        except ImportError as error:
            missing.append(f"{error}.")
    left_out += dict.fromkeys(missing)
    return planes
