"""Pictures of what a model does: confusions, classes, bias, reliability, robustness, speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from training.evaluation.corruptions import CORRUPTIONS
from training.style import INK, MUTED, OTHER, SEQUENTIAL, SERVED, drawing, shortened, text_on

WRITTEN_CLASSES = 20  # up to so many, a matrix has numbers in its cells
NAMED_CLASSES = 60  # up to so many, its rows and columns have names


@drawing()
def confusion(report: dict[str, Any], *, normalised: bool = False) -> Figure:
    """The confusion matrix; the diagonal is left out of the colours, so that mistakes are seen.

    Args:
        report: what `classification.metrics` says.
        normalised: in shares of the true class's images, instead of images.
    """
    from matplotlib import pyplot as plt

    counts, classes = np.array(report["confusion_matrix"]), list(report["per_class"])
    values = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) if normalised else counts
    mistakes = np.ma.masked_where(np.eye(len(classes), dtype=bool) | (values == 0), values)
    edge = float(np.clip(0.62 * len(classes) + 1.5, 4.5, 9.0 if len(classes) <= 30 else 12.0))
    figure, axes = plt.subplots(figsize=(edge + 1.0, edge))
    highest = float(mistakes.max()) if mistakes.count() else 1.0
    shown = axes.imshow(mistakes, cmap=SEQUENTIAL, vmin=0, vmax=highest)
    axes.grid(visible=False)
    if len(classes) <= WRITTEN_CLASSES:
        for row, column in np.ndindex(*values.shape):
            masked = mistakes.mask is not np.ma.nomask and mistakes.mask[row, column]
            axes.text(
                column,
                row,
                f"{values[row, column]:.1%}" if normalised else counts[row, column],
                ha="center",
                va="center",
                fontsize=7.5 if normalised else 8.5,
                color=INK if masked else text_on(shown.to_rgba(values[row, column])),
                weight="bold" if row == column else "normal",
                alpha=0.35 if counts[row, column] == 0 else 1.0,
            )
    else:
        axes.plot([-0.5, len(classes) - 0.5], [-0.5, len(classes) - 0.5], color=MUTED, linewidth=0.8)
    _name_both_axes(axes, classes)
    axes.set_xlabel("answered")
    axes.set_ylabel("true")
    low, high = report["accuracy_wilson_95"]
    axes.set_title(f"{report['images']:,} test images, {report['accuracy']:.2%} right (95 %: {low:.2%} to {high:.2%})")
    label = "mistakes, share of the true class" if normalised else "mistakes"
    bar = figure.colorbar(shown, label=label, shrink=0.8, format=PercentFormatter(1.0) if normalised else None)
    bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=8, integer=not normalised))
    return figure


@drawing()
def class_scores(report: dict[str, Any]) -> Figure:
    """Precision, recall and F1 of every class, the weakest at the bottom."""
    from matplotlib import pyplot as plt

    rows = sorted(report["per_class"].items(), key=lambda row: row[1]["f1"])
    positions = np.arange(len(rows))
    figure, axes = plt.subplots(figsize=(8, 1.3 + 0.28 * len(rows)))
    values = {name: np.array([row[name] for _, row in rows]) for name in ("precision", "recall", "f1")}
    axes.hlines(positions, values["precision"], values["recall"], color=MUTED, linewidth=2, alpha=0.6)
    axes.plot(values["precision"], positions, "o", color=SERVED, label="precision: of what it calls so, is so")
    axes.plot(values["recall"], positions, "D", color=OTHER, label="recall: of what is so, it calls so")
    axes.plot(values["f1"], positions, "|", color=INK, markersize=11, markeredgewidth=2, label="F1")
    _name_rows(axes, [name for name, _ in rows])
    lowest = min(value.min() for value in values.values())
    axes.set_xlim(np.floor(20 * lowest - 0.1) / 20, 1.01)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_title("Which classes are hard")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.35 / max(0.28 * len(rows), 1)), ncols=3)
    return figure


@drawing()
def class_bias(bias: dict[str, Any]) -> Figure:
    """How often every class is answered against how often it occurs."""
    from matplotlib import pyplot as plt

    names = list(bias["counts"])[::-1]
    occurs, predicted = (np.array([bias["counts"][name][key] for name in names]) for key in ("occurs", "predicted"))
    positions = np.arange(len(names))
    figure, axes = plt.subplots(figsize=(8, 1.3 + 0.28 * len(names)))
    axes.hlines(positions, occurs, predicted, color=MUTED, linewidth=2, alpha=0.6)
    axes.plot(occurs, positions, "|", color=INK, markersize=11, markeredgewidth=2, label="occurs")
    axes.plot(predicted, positions, "o", color=SERVED, label="is answered")
    _name_rows(axes, names)
    axes.margins(x=0.08)
    axes.set_xlabel("test images")
    axes.set_title("How often each class is answered, and how often it occurs")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


@drawing()
def reliability(calibration: dict[str, Any]) -> Figure:
    """Accuracy against confidence, served and without the temperature, and how many images are how confident."""
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.1), width_ratios=(1.15, 1))
    left.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, linestyle="--", label="confidence as it should be")
    series = [
        ("as served", SERVED, "o", calibration["served"]),
        ("before the temperature", OTHER, "D", calibration["without_temperature"]),
    ]
    series = [one for one in series if one[-1] is not None]
    share = 0.9 / len(series)  # of a bin's width, that a bar has
    for number, (label, colour, marker, found) in enumerate(series):
        confidence, accuracy, images, low, high = (
            np.array([one[name] for one in found["bins"]])
            for name in ("confidence", "accuracy", "images", "low", "high")
        )
        error = found["expected_calibration_error"]
        left.plot(confidence, accuracy, color=colour, linewidth=1.2, alpha=0.8)
        sizes = 10 + 90 * np.sqrt(images / images.sum())
        left.scatter(confidence, accuracy, sizes, color=colour, marker=marker, label=f"{label} (error {error:.1%})")
        width = high - low
        at = low + (0.05 + number * share) * width
        right.bar(at, images / images.sum(), share * width, align="edge", color=colour, label=label)
    left.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="share that is right")
    left.set_aspect("equal")
    left.set_title("Is it as right as it is sure?")
    right.set(xlim=(0, 1), xlabel="confidence", ylabel="share of images")
    right.set_title("How sure it is")
    for axes in (left, right):
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    left.legend(loc="upper left", fontsize=8)
    return figure


@drawing()
def robustness(report: dict[str, Any]) -> Figure:
    """A curve a corruption, from the untouched images on, with its 95 % interval."""
    from matplotlib import pyplot as plt

    columns = 5
    figure, grid = plt.subplots(-(-len(report["curves"]) // columns), columns, figsize=(10, 4.8), sharey=True)
    figure.get_layout_engine().set(h_pad=0.08)
    start = {"accuracy": report["accuracy"], "accuracy_wilson_95": report["accuracy_wilson_95"]}
    for axes, (name, points) in zip(grid.flat, report["curves"].items(), strict=False):
        corruption = CORRUPTIONS[name]
        points = [start, *points]
        steps = np.arange(len(points))
        accuracy = np.array([point["accuracy"] for point in points])
        low, high = np.array([point["accuracy_wilson_95"] for point in points]).T
        axes.fill_between(steps, low, high, color=SERVED, alpha=0.2, linewidth=0)
        axes.plot(steps, accuracy, "o-", color=SERVED)
        axes.axhline(report["accuracy"], color=MUTED, linewidth=1, linestyle="--")
        beside = (0, -13) if accuracy[-1] > 0.25 else (-14, 3)
        axes.annotate(
            f"{accuracy[-1]:.0%}", (steps[-1], accuracy[-1]), xytext=beside, textcoords="offset points", ha="center"
        )
        strengths = (corruption.untouched, *corruption.strengths)
        axes.set_xticks(steps, ["no", "yes"] if name == "inverted" else [f"{strength:g}" for strength in strengths])
        axes.margins(x=0.15)
        axes.set_xlabel(corruption.unit, fontsize=8)
        axes.set_title(corruption.title, fontsize=9)
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in grid[:, 0]:
        axes.set_ylabel("right")
    return figure


@drawing()
def robustness_by_class(report: dict[str, Any]) -> Figure:
    """Every class's accuracy under every corruption, mean over strengths."""
    from matplotlib import pyplot as plt

    classes = list(report["per_class"])
    columns = ["untouched", *report["curves"]]
    values = np.array([[report["per_class"][name][column] for column in columns] for name in classes])
    figure, axes = plt.subplots(figsize=(9, 1.8 + 0.3 * len(classes)))
    shown = axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    axes.grid(visible=False)
    if len(classes) <= NAMED_CLASSES:
        for row, column in np.ndindex(*values.shape):
            value = values[row, column]
            axes.text(
                column, row, f"{value:.0%}", ha="center", va="center", fontsize=8, color=text_on(shown.to_rgba(value))
            )
    titles = ["Untouched", *(CORRUPTIONS[name].title for name in report["curves"])]
    axes.set_xticks(range(len(columns)), titles, rotation=35, ha="right", rotation_mode="anchor")
    _name_rows(axes, classes, upright=False)
    axes.set_title("Share that is right, by class and corruption")
    figure.colorbar(shown, format=PercentFormatter(1.0))
    return figure


@drawing()
def latency(rows: Sequence[dict[str, Any]]) -> Figure:
    """Milliseconds a call and images a second, by batch size."""
    from matplotlib import pyplot as plt

    batch, median, high, rate = (
        np.array([row[name] for row in rows]) for name in ("batch", "median_ms", "p95_ms", "images_per_s")
    )
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    left.fill_between(batch, median, high, color=SERVED, alpha=0.2, linewidth=0, label="up to the slowest 5 %")
    left.plot(batch, median, "o-", color=SERVED, label="median")
    left.set_yscale("log")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter(FuncFormatter("{0:g}".format))
    left.yaxis.set_minor_formatter(NullFormatter())
    left.set_title("How long a call takes")
    left.set_ylabel("milliseconds")
    left.legend()
    right.plot(batch, rate, "o-", color=SERVED)
    right.set_ylim(0, None)
    right.set_title("How much it gets done")
    right.set_ylabel("images a second")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(batch, [str(size) for size in batch])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("images a call")
    return figure


def _name_both_axes(axes: Axes, classes: Sequence[str]) -> None:
    if len(classes) > NAMED_CLASSES:
        return
    size = mpl.rcParams["font.size"] * min(1.0, 22 / len(classes))
    names = [shortened(name) for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)


def _name_rows(axes: Axes, names: Sequence[str], *, upright: bool = True) -> None:
    axes.set_yticks(range(len(names)), [shortened(name) for name in names])
    axes.tick_params(axis="y", length=0)
    if upright:
        axes.set_ylim(-0.6, len(names) - 0.4)
