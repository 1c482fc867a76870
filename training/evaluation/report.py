"""Measures all of a version, part by part, and keeps each part: the figures of a report, and the images it shows."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from training import manifest
from training.classical import stratified
from training.datasets import DataError, Source, Split, TrainingData, load_test, load_training, png
from training.evaluation import data as of_data
from training.evaluation import features as of_features
from training.evaluation import explanations, projection, speed
from training.evaluation.against import against
from training.evaluation.bias import class_bias
from training.evaluation.cache import Cache, digest_of
from training.evaluation.classification import confusion_matrix, confusions, metrics, of_probabilities
from training.evaluation.mistakes import confident_mistakes, directions, likely_label_errors, nearest
from training.evaluation.reliability import reliability
from training.evaluation.robustness import robustness
from training.evaluation.served import Served

MISTAKES, NEIGHBOURS, LABEL_ERRORS = 24, 5, 24  # shown


@dataclass(frozen=True)
class Effort:
    """How many images, and how long."""

    name: str
    test_images: int | None  # None: all
    corrupted_images: int
    candidates: int  # training images that neighbours are looked for in
    points: int  # images in a plane
    methods: tuple[str, ...]  # of projection.METHODS
    batch_sizes: tuple[int, ...]
    calls: int  # of each batch size


FULL = Effort("full", None, 1000, 10_000, 3000, tuple(projection.METHODS), (1, 2, 4, 8, 16, 32, 64), 30)
QUICK = Effort("quick", 2000, 200, 1500, 1000, ("PCA",), (1, 8, 32), 10)


@dataclass(frozen=True)
class Evaluation:
    """The figures, and the images that they are about."""

    report: dict[str, Any]  # as in report.json
    training: TrainingData
    test: Split  # the test images that were used
    probabilities: np.ndarray  # float32 (N, C), of `test`
    planes: dict[str, dict[str, np.ndarray]]  # points float32 (N, 2) by what, then by method; see `projection`
    plane_labels: np.ndarray  # int64 (N,)


def evaluate_version(
    version_dir: Path, source: Source, effort: Effort, directory: Path, other_dir: Path | None = None
) -> Evaluation:
    """Evaluates a version; what was found before, of the same files and images, is taken from where it was kept.

    Args:
        version_dir: a version directory.
        source: its data.
        effort: FULL or QUICK.
        directory: of the report; parts are kept in its folder `cache`, and what training.faithfulness found lies there.
        other_dir: a version to compare with.

    Raises:
        DataError: the data are not there, or of other classes than the version's, or the other version's.
        FileNotFoundError: no manifest.
    """
    described = manifest.read(version_dir)
    classes = described["classes"]
    training, whole_test = load_training(source), load_test(source)
    _check_classes(classes, list(training.classes), version_dir, f"the dataset {source.dataset}")
    count = effort.test_images
    chosen = stratified(whole_test.labels, count, seed=0) if count and count < len(whole_test) else None
    test = whole_test if chosen is None else Split(whole_test.images[chosen], whole_test.labels[chosen])
    positions = np.arange(len(whole_test)) if chosen is None else chosen
    cache = Cache(
        directory / "cache", version=_digest(version_dir), data=digest_of(training.train, training.validation, test)
    )
    served, left_out = Served(version_dir), []

    probabilities = _ask(cache, served, test)
    labels, predicted = test.labels, probabilities.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, len(classes))
    vectors = _Vectors(version_dir, described, training, cache)
    if not vectors.model_file.is_file():
        left_out.append(
            f"Neighbours, multiply-accumulates and the plane of features need {vectors.model_file}, which this version "
            "does not have: expected the Keras model that training.export puts there; export the version again."
        )
    some = _subset(test, effort.corrupted_images)
    faithfulness, why_not = explanations.read(directory, described)
    if why_not is not None:
        left_out.append(why_not)
    planes, plane_labels = _planes(effort, test, vectors, cache, left_out)
    report = {
        "name": described["name"],
        "version": described["version"],
        "effort": asdict(effort),
        "test_images": {"used": len(test), "of": len(whole_test)},
        "classification": metrics(confusion, classes)
        | of_probabilities(probabilities, labels, classes)
        | {"confusions": confusions(confusion, classes)},
        "bias": class_bias(confusion, classes),
        "against": _against(other_dir, classes, predicted == labels, test, cache),
        "calibration": reliability(probabilities, labels, described.get("calibration", {}).get("temperature"))
        | {"validation": described.get("calibration")},
        "robustness": robustness(served, some, classes, cache),
        "mistakes": _mistakes(test, positions, probabilities, vectors, effort),
        "label_errors": _label_errors(test, positions, probabilities, cache, left_out),
        "faithfulness": faithfulness,
        "speed": _speed(version_dir, served, test, vectors, effort, cache),
        "data": cache.figures(
            "data",
            {},
            lambda: of_data.describe(
                {"train": training.train, "validation": training.validation, "test": whole_test}, classes
            ),
        )
        | {"facts": dict(training.facts)},
        "left_out": left_out,
    }
    return Evaluation(report, training, test, probabilities, planes, plane_labels)


class _Vectors:
    """The features of training and test images, once each."""

    def __init__(self, version_dir: Path, described: dict[str, Any], training: TrainingData, cache: Cache):
        self.model_file = version_dir / "assets.extra" / "model.keras"
        self._version_dir = version_dir
        self._view = of_features.view_of(described, training.train.images.shape[1])
        self._training = training.train
        self._cache = cache

    def of_test(self, split: Split, what: str) -> np.ndarray:
        """float32 (N, K)."""
        key = {"images": digest_of(split)}
        return self._cache.array("features", key, lambda: self._compute(split.images, what))

    def of_training(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The positions of about `count` training images, int64 (M,), and their features, float32 (M, K)."""
        positions = stratified(self._training.labels, count, seed=0)
        vectors = self._cache.array(
            "training-features",
            {"images": count},
            lambda: self._compute(self._training.images[positions], "looking at training images"),
        )
        return positions, vectors

    def _compute(self, images: np.ndarray, what: str) -> np.ndarray:
        return of_features.features(of_features.load(self._version_dir), self._view, images, what)


def _ask(cache: Cache, served: Served, test: Split) -> np.ndarray:
    """The probabilities of the test images, float32 (N, C)."""
    return cache.array(
        "probabilities",
        {"version": _digest(served.version_dir)},
        lambda: served.ask([png(image) for image in test.images], "probabilities", "evaluating"),
    )


def _against(
    other_dir: Path | None, classes: list[str], right: np.ndarray, test: Split, cache: Cache
) -> dict[str, Any] | None:
    if other_dir is None:
        return None
    others = manifest.read(other_dir)["classes"]
    _check_classes(classes, others, other_dir, f"version {other_dir.name}")
    answered = _ask(cache, Served(other_dir), test).argmax(axis=1)
    return against(right, answered == test.labels, other_dir.name)


def _mistakes(
    test: Split, positions: np.ndarray, probabilities: np.ndarray, vectors: _Vectors, effort: Effort
) -> list[dict[str, Any]]:
    """The most confident mistakes: where in the test set, as what, and the training images nearest to each."""
    wrong = confident_mistakes(probabilities, test.labels, MISTAKES)
    rows = [
        {
            "position": int(positions[one]),
            "index": int(one),
            "true": int(test.labels[one]),
            "predicted": int(probabilities[one].argmax()),
            "confidence": float(probabilities[one].max()),
            "neighbours": [],
        }
        for one in wrong
    ]
    if not len(wrong) or not vectors.model_file.is_file():
        return rows
    candidates, found = vectors.of_training(effort.candidates)
    queries = vectors.of_test(Split(test.images[wrong], test.labels[wrong]), "looking at mistakes")
    near, cosines = nearest(queries, found, NEIGHBOURS)
    for row, those, values in zip(rows, candidates[near].tolist(), cosines.tolist(), strict=True):
        row["neighbours"] = [
            {"position": position, "cosine": value} for position, value in zip(those, values, strict=True)
        ]
    return rows


def _label_errors(
    test: Split, positions: np.ndarray, probabilities: np.ndarray, cache: Cache, left_out: list[str]
) -> dict[str, Any] | None:
    if len(np.unique(test.labels)) < probabilities.shape[1]:
        left_out.append("Likely label errors: expected test images of every class; some have none.")
        return None
    try:
        found = cache.figures("label-errors", {}, lambda: likely_label_errors(probabilities, test.labels).tolist())
    except ImportError as error:
        left_out.append(f"{error}.")
        return None
    shown = [
        {
            "position": int(positions[one]),
            "index": int(one),
            "label": int(test.labels[one]),
            "suggested": int(probabilities[one].argmax()),
            "probability_of_label": float(probabilities[one, test.labels[one]]),
        }
        for one in found[:LABEL_ERRORS]
    ]
    return {"images": len(found), "share": len(found) / len(test), "likeliest": shown}


def _speed(
    version_dir: Path, served: Served, test: Split, vectors: _Vectors, effort: Effort, cache: Cache
) -> dict[str, Any]:
    machine = speed.machine()
    key = {"machine": machine, "batch_sizes": effort.batch_sizes, "calls": effort.calls}
    encoded = [png(image) for image in test.images[: max(effort.batch_sizes)]]
    return {
        "machine": machine,
        "latency": cache.figures(
            "latency", key, lambda: speed.latencies(served, encoded, effort.batch_sizes, effort.calls)
        ),
        "cost": cache.figures("cost", {}, lambda: speed.cost(of_features.load(version_dir)))
        if vectors.model_file.is_file()
        else None,
        "files": speed.file_bytes(version_dir),
    }


def _planes(
    effort: Effort, test: Split, vectors: _Vectors, cache: Cache, left_out: list[str]
) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray]:
    subset = _subset(test, effort.points)
    computed = {"Pixels": lambda: projection.pixel_vectors(subset.images)}
    if vectors.model_file.is_file():
        computed["Features of the model"] = lambda: directions(vectors.of_test(subset, "looking at test images"))
    steps = [(what, method) for method in effort.methods for what in computed]
    planes: dict[str, dict[str, np.ndarray]] = {what: {} for what in computed}
    for what, method in tqdm(steps, desc="projecting", unit="plane", disable=not sys.stderr.isatty()):
        try:
            planes[what][method] = cache.array(
                "plane",
                {"what": what, "method": method, "images": effort.points},
                lambda what=what, method=method: projection.METHODS[method](computed[what]()),
            )
        except ImportError as error:
            if f"{error}." not in left_out:
                left_out.append(f"{error}.")
    return planes, subset.labels


def _subset(test: Split, count: int) -> Split:
    if count >= len(test):
        return test
    positions = stratified(test.labels, count, seed=0)
    return Split(test.images[positions], test.labels[positions])


def _digest(version_dir: Path) -> str:
    """Of all files of a version."""
    return hashlib.sha256(json.dumps(manifest.hashes(version_dir), sort_keys=True).encode()).hexdigest()


def _check_classes(classes: list[str], found: list[str], version_dir: Path, whose: str) -> None:
    if classes == found:
        return
    missing, foreign = [one for one in classes if one not in found], [one for one in found if one not in classes]
    raise DataError(
        f"{whose} has {len(found)} classes ({', '.join(found[:10])}{', …' * (len(found) > 10)}); expected the "
        f"{len(classes)} of {version_dir}: {', '.join(classes[:10])}{', …' * (len(classes) > 10)}"
        + (f". Missing: {', '.join(missing[:10])}" * bool(missing))
        + (f". Unknown: {', '.join(foreign[:10])}" * bool(foreign))
        + (". They are the same in another order" * (not missing and not foreign))
    )
