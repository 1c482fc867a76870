"""Small pieces of HTML, made from data alone; every text in them is escaped."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.client.results import Score
from ui.advice import Advice
from ui.gallery import Sample

STYLE_SHEET = Path(__file__).resolve().parent / "style.css"


def picture_url(image: Image.Image) -> str:
    """A picture as a data: URL, so that it travels with the page.

    Streamlit's own way is a second request for each picture, to a file gone as soon as the next drawing replaces
    it: on a busy machine the browser comes too late and shows a broken picture.
    """
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=90, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def percent(probability: float) -> str:
    """A probability for reading: 97.3 %, and never a false 0 or 100."""
    if 0 < probability < 0.001:
        return "< 0.1 %"
    if 0.999 < probability < 1:
        return "> 99.9 %"
    return f"{100 * probability:.1f} %"


def headline(name: str, probability: float) -> str:
    """What the picture is, and how sure the model is."""
    return (
        f'<div role="status"><p class="vt-kicker">The model sees</p><h2 class="vt-name">{escape(name)}</h2>'
        f'<p class="vt-sure">{percent(probability)} sure</p></div>'
    )


def verdict(predicted: str, true_label: str, classes: Sequence[str]) -> str:
    """Whether the prediction is the true label of a gallery picture."""
    label = escape(true_label)
    if true_label not in classes:
        text, kind = f"True label: {label}. This model does not know that class.", "plain"
    elif predicted == true_label:
        text, kind = f"✓ Right: the true label is {label}", "right"
    else:
        text, kind = f"✕ Wrong: the true label is {label}", "wrong"
    return f'<span class="vt-verdict vt-{kind}">{text}</span>'


def bars(scores: Sequence[Score]) -> str:
    """The most probable classes as bars with their numbers."""
    rows = "".join(
        f'<li><span class="vt-label">{escape(score.class_name)}</span>'
        f'<span class="vt-track" aria-hidden="true"><span class="vt-fill" '
        f'style="width:{100 * score.probability:.2f}%"></span></span>'
        f'<span class="vt-number">{percent(score.probability)}</span></li>'
        for score in scores
    )
    return f'<ul class="vt-bars" aria-label="Most probable classes">{rows}</ul>'


def scale(low: str, high: str, colours: npt.NDArray[np.uint8]) -> str:
    """The legend of a map: its colours (n, 3) from low to high."""
    steps = ",".join(f"rgb({r} {g} {b})" for r, g, b in colours.tolist())
    return (
        f'<div class="vt-scale"><span>{escape(low)}</span><i style="background:linear-gradient(90deg,{steps})"></i>'
        f"<span>{escape(high)}</span></div>"
    )


def grid(values: npt.NDArray[np.float32], colours: npt.NDArray[np.uint8], label: str) -> str:
    """The raw map as a table.

    Args:
        values: (h, w), in logit units.
        colours: (h, w, 3), uint8 background of each cell.
        label: what the numbers are, for screen readers.
    """
    digits = 2 if np.abs(values).max() >= 1 else 3
    rows = "".join(
        "<tr>" + "".join(_cell(value, digits, colour) for value, colour in zip(*line, strict=True)) + "</tr>"
        for line in zip(values.tolist(), colours.tolist(), strict=True)
    )
    return f'<table class="vt-grid" aria-label="{escape(label)}"><tbody>{rows}</tbody></table>'


def _cell(value: float, digits: int, colour: Sequence[int]) -> str:
    red, green, blue = colour
    ink = "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#fff"
    return f'<td style="background:rgb({red} {green} {blue});color:{ink}">{value:+.{digits}f}</td>'


def invitation() -> str:
    """What stands where the answer will be."""
    return (
        '<div class="vt-empty"><b>Choose a picture</b>A file of yours, one from the gallery, '
        "or a photo. What the model says about it, and why, appears here.</div>"
    )


def footer(model: str, version: int | None, latency_ms: float, *, remembered: bool) -> str:
    """Who answered, and how fast; and whether nothing was asked for this showing."""
    which = f"version {version}" if version is not None else "an unnamed version"
    again = "; shown again from memory" if remembered else ""
    return f'<p class="vt-foot">Answered by <b>{escape(model)}</b>, <b>{which}</b>, in {latency_ms:.0f} ms{again}.</p>'


def chips(names: Sequence[str]) -> str:
    """Class names with their ids."""
    return "".join(f'<span class="vt-chip"><small>{i}</small> {escape(name)}</span>' for i, name in enumerate(names))


def version_line(model: str, version: int, state: str, *, ready: bool) -> str:
    """One version of the model and its state."""
    kind = "right" if ready else "plain"
    return (
        f'<p class="vt-foot"><b>{escape(model)}</b> version <b>{version}</b> '
        f'<span class="vt-verdict vt-{kind}">{escape(state)}</span></p>'
    )


def advice_text(advice: Advice) -> str:
    """A problem as Markdown; its detail apart, so that it does not shout."""
    return f"**{plain(advice.title)}**  \n{plain(advice.action)}"


def gallery_style(samples: Sequence[Sample], chosen: int | None) -> str:
    """The pictures of the gallery as faces of its buttons."""
    rules = []
    for sample in samples:
        picture = base64.b64encode(sample.file.read_bytes()).decode("ascii")
        button = f".st-key-sample-{sample.test_index} button"
        rules.append(f'{button}{{background-image:url("data:image/png;base64,{picture}")}}')
        if sample.test_index == chosen:
            rules.append(f"{button}{{border-color:#0f6673;box-shadow:0 0 0 3px #0f6673}}")
            rules.append(f'{button} p::before{{content:"✓ "}}')  # colour alone is not seen by everyone
    return f"<style>{''.join(rules)}</style>"


def plain(text: str) -> str:
    """Text in which Markdown finds nothing to format: file names are strangers' words."""
    return "".join(f"\\{char}" if char in "\\`*_{}[]()<>#+-.!|~$:&" else char for char in text)
