"""Pictures of the data: classes and their sizes, samples, mean images, pixels, and images as points of a plane."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from training.evaluation.data import BINS
from training.style import CATEGORIES, GRID, INK, category_colours, drawing, shortened

SHOWN_CLASSES = 30  # of samples; a picture of more is too long to look at
LABELLED_CLASSES = 25  # in a plane; more names cover each other
TILE = 56  # pixels
GAP = 4


@drawing()
def class_balance(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """How many images of every class each split has."""
    from matplotlib import pyplot as plt

    names = list(next(iter(counts.values())))[::-1]
    positions = np.arange(len(names))
    figure, axes = plt.subplots(figsize=(8, 1.3 + 0.26 * len(names)))
    left = np.zeros(len(names))
    for (split, numbers), colour in zip(counts.items(), CATEGORIES, strict=False):
        values = np.array([numbers[name] for name in names])
        axes.barh(positions, values, 0.7, left, color=colour, label=split)
        left += values
    axes.set_yticks(positions, [shortened(name) for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("images")
    axes.set_title("How many images there are of every class")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


@drawing()
def samples(rows: Sequence[Sequence[np.ndarray]], means: np.ndarray, classes: Sequence[str]) -> Figure:
    """Images of every class in a row, and first their mean; at most SHOWN_CLASSES rows.

    Args:
        rows: uint8 (H, W, C) images, a row a class.
        means: uint8 (classes, H, W, C).
        classes: their names.
    """
    from matplotlib import pyplot as plt

    rows, classes = rows[:SHOWN_CLASSES], classes[:SHOWN_CLASSES]
    step, columns = TILE + GAP, max(map(len, rows))
    first = step + 4 * GAP  # where the samples begin, after the mean
    sheet = np.zeros((len(rows) * step - GAP, first + columns * step - GAP, 4), np.uint8)
    for row, images in enumerate(rows):
        places = [0, *(first + column * step for column in range(len(images)))]
        for left, image in zip(places, [means[row], *images], strict=True):
            sheet[row * step : row * step + TILE, left : left + TILE] = _tile(image)
    inch = 0.0088  # a pixel
    figure, axes = plt.subplots(figsize=(2.0 + inch * sheet.shape[1], 0.7 + inch * sheet.shape[0]))
    axes.imshow(sheet, interpolation="nearest")
    axes.set_yticks([row * step + TILE / 2 for row in range(len(rows))], [shortened(name) for name in classes])
    axes.xaxis.tick_top()
    axes.set_xticks([TILE / 2, first + (columns * step - GAP) / 2], ["mean", "some training images"])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    return figure


@drawing()
def pixels(statistics: Mapping[str, Mapping[str, Any]]) -> Figure:
    """The histogram of pixels of every split."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.2))
    edges = np.linspace(0, 256, BINS + 1)
    for (name, one), colour in zip(statistics.items(), CATEGORIES, strict=False):
        axes.stairs(one["histogram"], edges, baseline=None, color=colour, linewidth=1.5, label=name)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_xlabel("value of a pixel")
    axes.set_ylabel("share of pixels (logarithmic)")
    axes.set_title("How bright the images are")
    axes.legend()
    return figure


@drawing()
def planes(points: Mapping[str, Mapping[str, np.ndarray]], labels: np.ndarray, classes: Sequence[str]) -> Figure:
    """Images as points, coloured by class: a row a method, a column for what is compared.

    Args:
        points: float (N, 2) by what is compared ("Pixels"), then by method ("PCA").
        labels: int (N,).
        classes: their names.
    """
    from matplotlib import pyplot as plt

    methods = list(next(iter(points.values())))
    figure, grid = plt.subplots(
        len(methods), len(points), figsize=(3.7 * len(points) + 1.8, 3.6 * len(methods)), squeeze=False
    )
    colours = category_colours(len(classes))
    order = np.random.default_rng(0).permutation(len(labels))  # no class lies on top of all others
    for (row, method), (column, what) in itertools.product(enumerate(methods), enumerate(points)):
        axes = grid[row, column]
        shades = [colours[label] for label in labels[order]]
        axes.scatter(*points[what][method][order].T, s=6, c=shades, alpha=0.7, linewidths=0, rasterized=True)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(GRID)
        axes.spines[:].set_visible(True)
        axes.set_title(f"{what}, {method}")
    if len(classes) <= LABELLED_CLASSES:
        handles = [
            plt.Line2D([], [], linestyle="", marker="o", color=colour, label=shortened(name, 18))
            for name, colour in zip(classes, colours, strict=True)
        ]
        figure.legend(handles=handles, loc="outside right upper", labelcolor=INK)
    return figure


def _tile(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, C) -> uint8 (TILE, TILE, 4), whole and centred."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGBA")
    factor = TILE / max(picture.size)
    size = [max(1, round(edge * factor)) for edge in picture.size]
    resampling = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX
    tile = Image.new("RGBA", (TILE, TILE), (0, 0, 0, 0))
    tile.paste(picture.resize(size, resampling), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return np.asarray(tile)
