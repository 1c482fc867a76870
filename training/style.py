"""How every picture looks and is kept: PNG and SVG, and an SVG for the page that follows its theme."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

DPI = 150
INK = "#1f2328"  # of text and axes, and of nothing else: on the page it becomes the theme's
INK_ON_DARK = "#e6edf3"
MUTED = "#80868e"  # reads on white and on black
GRID = "#8c959f59"  # the last two digits are its opacity
SERVED, OTHER = "#3f90da", "#e76300"  # what a picture is about, and what it is compared with
# Petroff (2021, https://arxiv.org/abs/2107.02270): told apart by people who see fewer colours, too
CATEGORIES = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
SEQUENTIAL = "viridis_r"  # perceptually uniform; the little is bright
BRIGHT = 0.55  # luminance from which black text reads better than white

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.constrained_layout.use": True,
    "savefig.dpi": DPI,
    "svg.hashsalt": "vitrine",
    "text.parse_math": False,  # a class may be called "$5 bag"
}


@contextmanager
def drawing() -> Iterator[None]:
    """Figures made inside look as they should."""
    mpl.use("Agg")
    with mpl.rc_context(_STYLE):
        yield


@drawing()
def save(figure: Figure, path: Path, formats: Sequence[str] = ("png", "svg")) -> None:
    """Writes `path` with each format's ending, on white, and closes the figure."""
    from matplotlib import pyplot as plt

    for suffix in formats:
        figure.savefig(f"{path}.{suffix}", metadata={"Date": None} if suffix == "svg" else None)
        figure.set_layout_engine("none")  # laid out once is enough, and takes most of the time
    plt.close(figure)


def data_uri_for_page(svg: Path) -> str:
    """The SVG as a data URI: without its ground, and with ink that is bright where the reader's theme is dark."""
    drawn = svg.read_text(encoding="utf-8")
    if INK not in drawn:  # not of this style: it needs the ground that it was drawn on
        return _uri(drawn)
    drawn = drawn.replace(INK, "currentColor")
    ground = drawn.find('<g id="patch_1">')
    if ground >= 0:
        drawn = drawn[:ground] + drawn[drawn.index("</g>", ground) + len("</g>") :]
    theme = f"<style>svg{{color:{INK}}}@media(prefers-color-scheme:dark){{svg{{color:{INK_ON_DARK}}}}}</style>"
    start = drawn.index(">", drawn.index("<svg")) + 1
    return _uri(drawn[:start] + theme + drawn[start:])


def _uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def category_colours(count: int) -> list[Any]:
    """A colour a class: told apart up to ten; beyond, neighbours are alike and names have to help."""
    if count <= len(CATEGORIES):
        return list(CATEGORIES[:count])
    return list(mpl.colormaps["viridis"](np.linspace(0.0, 0.95, count)))


def text_on(colour: tuple[float, float, float, float]) -> str:
    """Black or white, what reads better on an RGBA colour."""
    red, green, blue = colour[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > BRIGHT else "white"


def shortened(name: str, length: int = 24) -> str:
    """A class's name as it fits beside an axis."""
    return name if len(name) <= length else f"{name[: length - 1]}…"
