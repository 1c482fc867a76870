"""Draws explanations: a row an image, a column a method, over what the model saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.cm
import matplotlib.patches
import numpy as np
from matplotlib.figure import Figure

from training import style
from training.explanation.resampling import at_size
from training.style import drawing

POSITIVE, SIGNED = (
    "inferno",
    "RdBu_r",
)  # perceptually uniform | diverging, white at zero; both for the colour-blind, too
CELL = 1.45  # inches
SHARPNESS = 8  # pixels of an overlay for one of the view
WHOLE = (0.0, 0.0, 1.0, 1.0)
_BOX = "#e6007e"


@dataclass(frozen=True)
class Row:
    """One image."""

    view: np.ndarray  # (V, V, C), 0..255: what the model sees
    lines: tuple[str, ...]  # what is written beside it
    picture: np.ndarray | None = None  # uint8 (H, W, 3), as it came, where that is something else
    box: tuple[float, float, float, float] = WHOLE  # ymin, xmin, ymax, xmax: the part of it that is seen, as fractions


@dataclass(frozen=True)
class Column:
    """The maps of one method."""

    title: str
    signed: bool
    maps: np.ndarray  # float32 (N, h, w), one a row


@drawing()
def draw(rows: Sequence[Row], columns: Sequence[Column], title: str, seen: str = "what the\nmodel sees") -> Figure:
    """Lays them out. Every map is divided by its own largest magnitude; one that is zero is said to be.

    Args:
        rows: with a column for their pictures, if they have them.
        columns: the maps.
        title: of the sheet.
        seen: what stands over the views.

    Raises:
        ValueError: a column has not one map a row.
    """
    if unfit := [column.title for column in columns if len(column.maps) != len(rows)]:
        raise ValueError(f"expected one map for each of {len(rows)} rows, got another number in {', '.join(unfit)}")
    heads = ["picture"] * any(row.picture is not None for row in rows)
    heads += [seen, *(column.title for column in columns)]
    first = len(heads) - len(columns)
    width, height = len(heads), len(rows)
    kinds = len({column.signed for column in columns})
    figure = Figure(figsize=(1.3 + CELL * width + 1.2 * kinds, 1.0 + CELL * height), layout="compressed")
    grid = figure.subplots(height, width, squeeze=False)
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
    for axes, name in zip(grid[0], heads, strict=True):
        axes.set_title(name, fontsize=9, fontweight="normal", loc="center")
    for number, row in enumerate(rows):
        grid[number, 0].set_ylabel("\n".join(row.lines), rotation=0, ha="right", va="center", fontsize=9)
        if row.picture is not None:
            _picture(grid[number, 0], row.picture, row.box)
        view = row.view.astype(np.uint8)
        grid[number, first - 1].imshow(view, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        for axes, column in zip(grid[number, first:], columns, strict=True):
            _overlay(axes, row.view, column.maps[number], signed=column.signed)
    _colour_bars(figure, grid, columns)
    figure.suptitle(title, fontsize=12)
    return figure


def save(figure: Figure, output: Path) -> list[Path]:
    """Writes a figure: to `output` as its suffix says, or to explanation.png and .svg in a folder."""
    path = output if output.suffix else output / "explanation"
    formats = (output.suffix[1:],) if output.suffix else ("png", "svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    style.save(figure, path.with_suffix(""), formats)
    return [path.with_suffix(f".{one}") for one in formats]


def coloured(view: np.ndarray, one: np.ndarray, *, signed: bool) -> np.ndarray:
    """A map over the view that it belongs to.

    Args:
        view: (V, V, C), 0..255.
        one: float (h, w), the map. One that is finer than the view is averaged: there is nothing finer to be seen.
        signed: whether it has a sign: then zero is white and the object dark on it; else zero is black and the object
            light.

    Returns:
        float (V * SHARPNESS, V * SHARPNESS, 3), 0..1.
    """
    size = view.shape[0]
    grey = _enlarged(view.mean(axis=-1) / 255.0)[..., None]
    one = at_size(one[None], size * SHARPNESS)[0] if len(one) < size else _enlarged(at_size(one[None], size)[0])
    peak = np.abs(one).max() if signed else max(one.max(), 0.0)
    share = one / peak if peak > 0 else np.zeros_like(one)
    if signed:
        return mpl.colormaps[SIGNED]((share + 1.0) / 2.0)[..., :3] * (1.0 - 0.55 * grey)
    return 1.0 - (1.0 - mpl.colormaps[POSITIVE](share)[..., :3]) * (1.0 - 0.5 * grey)


def _enlarged(values: np.ndarray) -> np.ndarray:
    """(V, V) -> (V * SHARPNESS, V * SHARPNESS), every value a square."""
    return np.kron(values, np.ones((SHARPNESS, SHARPNESS), values.dtype))


def _picture(axes: mpl.axes.Axes, picture: np.ndarray, box: tuple[float, float, float, float]) -> None:
    height, width = picture.shape[:2]
    axes.imshow(picture)
    top, left, bottom, right = box
    if box != WHOLE:
        corner = left * width - 0.5, top * height - 0.5
        size = (right - left) * width, (bottom - top) * height
        axes.add_patch(mpl.patches.Rectangle(corner, *size, fill=False, edgecolor=_BOX, linewidth=1.2))


def _overlay(axes: mpl.axes.Axes, view: np.ndarray, one: np.ndarray, *, signed: bool) -> None:
    axes.imshow(coloured(view, one, signed=signed), interpolation="nearest")
    empty = not one.any() if signed else one.max() <= 0
    if empty:
        words = "no evidence\neither way" if signed else "no positive\nevidence"
        axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", fontsize=9,
                  bbox={"facecolor": "white", "edgecolor": "0.5", "boxstyle": "round,pad=0.3"})  # fmt: skip


def _colour_bars(figure: Figure, grid: np.ndarray, columns: Sequence[Column]) -> None:
    """One for each kind of map that is there, at the right."""
    kinds = [
        (False, POSITIVE, 0, ("nothing", "the map's\nlargest value")),
        (True, SIGNED, -1, ("against", "neutral", "for")),
    ]
    for signed, name, low, words in kinds:
        if any(column.signed == signed for column in columns):
            shown = mpl.cm.ScalarMappable(mpl.colors.Normalize(low, 1), name)
            bar = figure.colorbar(shown, ax=grid, fraction=0.03, aspect=15, shrink=min(1.0, 3.0 / len(grid)), pad=0.01)
            bar.set_ticks(np.linspace(low, 1, len(words)), labels=words)
            bar.ax.tick_params(labelsize=9)
            bar.outline.set_visible(False)
