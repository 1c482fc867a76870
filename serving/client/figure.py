"""One picture that can be kept or sent: the photo beside its overlay, with a title, a caption and the colour bar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from serving.client.colormaps import diverging, sequential
from serving.client.overlay import PAINTED_RANGE

_MARGIN_PX = 16
_TITLE_PX = 20
_TEXT_PX = 15
_BAR_PX = 14
_INK = (30, 30, 30)


@dataclass(frozen=True)
class ColourBar:
    """What the colours of an overlay mean.

    Attributes:
        low, high: text at the two ends.
        signed: the colours of a contrast instead of those of evidence.
    """

    low: str
    high: str
    signed: bool = False


def beside(photo: Image.Image, overlay: Image.Image, title: str, caption: str, bar: ColourBar | None) -> Image.Image:
    """The photo and its overlay side by side.

    Args:
        photo, overlay: RGB of one size.
        title: above both.
        caption: under the overlay's side: which evidence is shown.
        bar: the colour bar under the overlay; None where nothing was painted.

    Returns:
        RGB.
    """
    width, height = photo.size
    top = 2 * _MARGIN_PX + _TITLE_PX
    below = top + height + _MARGIN_PX // 2
    rows = 2 if bar else 1
    figure = Image.new(
        "RGB",
        (2 * width + 3 * _MARGIN_PX, below + _TEXT_PX + (rows - 1) * (_BAR_PX + _TEXT_PX) + 2 * _MARGIN_PX),
        "white",
    )
    draw = ImageDraw.Draw(figure)
    right = width + 2 * _MARGIN_PX
    draw.text((_MARGIN_PX, _MARGIN_PX), _fit(title, _TITLE_PX, 2 * width), fill=_INK, font=_font(_TITLE_PX))
    figure.paste(photo, (_MARGIN_PX, top))
    figure.paste(overlay, (right, top))
    draw.text((right, below), _fit(caption, _TEXT_PX, width), fill=_INK, font=_font(_TEXT_PX))
    if bar:
        _draw_bar(figure, bar, right, below + _TEXT_PX + _MARGIN_PX // 2, width)
    return figure


def _draw_bar(figure: Image.Image, bar: ColourBar, left: int, top: int, width: int) -> None:
    if bar.signed:
        colours = diverging(np.linspace(-PAINTED_RANGE, PAINTED_RANGE, width))
    else:
        colours = sequential(np.linspace(0, 1, width))
    figure.paste(Image.fromarray(colours[None]).resize((width, _BAR_PX)), (left, top))
    draw = ImageDraw.Draw(figure)
    y = top + _BAR_PX + 4
    draw.text((left, y), _fit(bar.low, _TEXT_PX, width // 2), fill=_INK, font=_font(_TEXT_PX))
    draw.text((left + width, y), _fit(bar.high, _TEXT_PX, width // 2), fill=_INK, font=_font(_TEXT_PX), anchor="ra")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fit(text: str, size: int, width: int) -> str:
    """The text, cut with an ellipsis where it is wider than the place for it."""
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
