"""Measures a version through its served signature on PNG bytes of the test images.

python -m training.evaluate --version 2        # -> reports/fashion_mnist/2/report.json, confusion_matrix.png
python -m training.evaluate --name clothing    # on the test split of the data it was trained on
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from training import manifest
from training.datasets import DataError, Source, Split, load_test, png
from training.settings import MODELS
from training.versions import newest_or

BATCH = 100
RESAMPLES = 2000


def wilson_interval(successes: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson, 1927), 95 % by default. Returns low, high in 0..1.

    Example:
        >>> [round(bound, 4) for bound in wilson_interval(9400, 10000)]
        [0.9352, 0.9445]
    """
    if not 0 <= successes <= total or total == 0:
        raise ValueError(f"expected 0 <= successes <= total and total > 0, got {successes} of {total}")
    share = successes / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return (centre - spread) / scale, (centre + spread) / scale


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 (C, C): rows are true classes, columns predicted ones."""
    return np.bincount(labels.astype(np.int64) * num_classes + predicted, minlength=num_classes**2).reshape(
        num_classes, -1
    )


def metrics(confusion: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """Accuracy and macro F1 with their 95 % intervals, precision, recall and F1 of every class."""
    correct, total = int(np.trace(confusion)), int(confusion.sum())
    precision, recall, f1 = _scores(confusion)
    actual = confusion.sum(axis=1)
    return {
        "images": total,
        "accuracy": correct / total,
        "accuracy_wilson_95": list(wilson_interval(correct, total)),
        "macro_f1": float(f1.mean()),
        "macro_f1_bootstrap_95": list(macro_f1_interval(confusion)),
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "images": int(n)}
            for name, p, r, f, n in zip(classes, precision, recall, f1, actual, strict=True)
        },
        "confusion_matrix": confusion.tolist(),
    }


def macro_f1_interval(confusion: np.ndarray, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval (Efron, 1979) of the macro F1: as many images drawn again, class by class.

    Args:
        confusion: int (C, C), rows are true classes.

    Returns:
        low, high in 0..1, the same for the same matrix.
    """
    generator = np.random.default_rng(0)
    actual = confusion.sum(axis=1)
    shares = confusion / np.maximum(actual, 1)[:, None]
    shares[actual == 0] = 1.0 / len(confusion)
    drawn = np.stack(
        [generator.multinomial(n, share, resamples) for n, share in zip(actual, shares, strict=True)], axis=1
    )
    scores = [_scores(one)[2].mean() for one in drawn]  # drawn: (resamples, C, C)
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)


def _scores(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of every class, float64 (C,); 0 where undefined."""
    hits = np.diag(confusion)
    precision, recall = _ratio(hits, confusion.sum(axis=0)), _ratio(hits, confusion.sum(axis=1))
    return precision, recall, _ratio(2 * precision * recall, precision + recall)


def evaluate(version_dir: Path, test: Split) -> dict[str, Any]:
    """What `metrics` says of the answers to the test images (see `answers`)."""
    classes = manifest.read(version_dir)["classes"]
    return metrics(confusion_matrix(test.labels, answers(version_dir, test), len(classes)), classes)


def answers(version_dir: Path, test: Split) -> np.ndarray:
    """Runs the test images as PNG bytes through `serving_default`.

    Args:
        version_dir: a version directory.
        test: images uint8 (N, H, W, C) and labels (N,).

    Returns:
        The predicted classes, int64 (N,).
    """
    serve = tf.saved_model.load(str(version_dir)).signatures["serving_default"]
    starts = range(0, len(test), BATCH)
    predicted = [
        serve(image_bytes=tf.constant([png(image) for image in test.images[start : start + BATCH]]))["class_id"].numpy()
        for start in tqdm(starts, desc="evaluating", unit="batch", disable=not sys.stderr.isatty())
    ]
    return np.concatenate(predicted)


def trained_on(version_dir: Path, dataset: str | None, data_dir: str | None) -> Source:
    """Where the test images of a version are: its dataset, split as it was for training.

    Args:
        dataset: a name or path instead of the one in the manifest.

    Raises:
        FileNotFoundError: no manifest.
    """
    training = manifest.read(version_dir)["training"]
    names = {field.name for field in dataclasses.fields(Source)}
    known = {name: value for name, value in training.items() if name in names and value is not None}
    if "class_names" in known:
        known["class_names"] = tuple(known["class_names"])
    given = {name: value for name, value in (("dataset", dataset), ("data_dir", data_dir)) if value is not None}
    return Source(**(known | given))


def evaluate_export(export: Path, test: Split) -> dict[str, Any]:
    """Evaluates an export before it is published; the report and the picture go into the version.

    Raises:
        FileNotFoundError: `export` has no manifest, so it is no export.
    """
    content = manifest.read(export)
    report = evaluate(export, test)
    plot_confusion(report, export / "assets.extra" / "confusion_matrix.png")
    content["metrics"]["test"] = report
    manifest.write(export, content)
    return report


def plot_confusion(report: dict[str, Any], path: Path) -> None:
    """Draws the confusion matrix; the diagonal is left out of the colours, so that mistakes are seen."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    confusion, classes = np.array(report["confusion_matrix"]), list(report["per_class"])
    mistakes = np.where(np.eye(len(classes), dtype=bool), 0, confusion)
    figure, axes = plt.subplots(figsize=(7.5, 6.5), layout="constrained")
    shown = axes.imshow(mistakes, cmap="cividis_r")
    for row, column in np.ndindex(*confusion.shape):
        dark = mistakes[row, column] > mistakes.max() / 2
        weight = "bold" if row == column else "normal"
        axes.text(
            column,
            row,
            confusion[row, column],
            ha="center",
            va="center",
            color="white" if dark else "black",
            weight=weight,
        )
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    low, high = report["accuracy_wilson_95"]
    axes.set_title(f"{report['images']} test images, accuracy {report['accuracy']:.2%} (95 %: {low:.2%} to {high:.2%})")
    figure.colorbar(shown, label="mistakes")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def table(report: dict[str, Any]) -> str:
    """The report as text."""
    low, high = report["accuracy_wilson_95"]
    lines = [f"accuracy {report['accuracy']:.4f} (95 % Wilson interval {low:.4f} to {high:.4f})"]
    low, high = report["macro_f1_bootstrap_95"]
    lines.append(f"macro F1 {report['macro_f1']:.4f} (95 % bootstrap interval {low:.4f} to {high:.4f})")
    width = max(14, *(len(name) + 2 for name in report["per_class"]))
    lines.append(f"{'class':{width}}{'precision':>10}{'recall':>10}{'F1':>10}{'images':>10}")
    for name, row in report["per_class"].items():
        lines.append(f"{name:{width}}{row['precision']:10.4f}{row['recall']:10.4f}{row['f1']:10.4f}{row['images']:10d}")
    return "\n".join(lines)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="fashion_mnist")
    parser.add_argument("--version", type=int, help="default: the newest")
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--export", type=Path, help="instead: an export to come; the report goes into its manifest")
    parser.add_argument("--dataset", help="name or path (default: what the version was trained on)")
    parser.add_argument("--data-dir", help="of a dataset by name: the directory of its files")
    arguments = parser.parse_args(argv)
    try:
        version_dir = arguments.export or newest_or(arguments.models / arguments.name, arguments.version)
        test = load_test(trained_on(version_dir, arguments.dataset, arguments.data_dir))
        if arguments.export:
            print(table(evaluate_export(arguments.export, test)))
            return 0
        report = evaluate(version_dir, test)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    directory = Path("reports") / arguments.name / version_dir.name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    plot_confusion(report, directory / "confusion_matrix.png")
    print(f"{table(report)}\nwrote {directory}/report.json and confusion_matrix.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
