"""Draws what a version makes of photos: the photo with the square that is looked at, what the model sees, its answer.

python -m training.contact_sheet photos/*.jpg -o sheet.png               # the newest version
python -m training.contact_sheet shoe.jpg bag.png -o sheet.png --version 2
"""

from __future__ import annotations

import argparse
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont, ImageOps
from tqdm import tqdm

from training.settings import MODELS
from training.versions import newest_or

TILE = 196  # pixels, edge of the photo's and of the view's place: 7 pixels for each of the view's 28
MARGIN, CAPTION = 10, 40  # pixels around a cell, and under it for the text
INK, PAPER, BOX = "black", "white", "#e6007e"


class ImageError(ValueError):
    """A file that is missing, or that the model cannot read."""


@dataclass(frozen=True)
class Look:
    """One photo and what the model makes of it."""

    name: str
    photo: Image.Image  # upright
    view: Image.Image  # what the model sees: grey, 28x28
    box: tuple[float, float, float, float]  # ymin, xmin, ymax, xmax: where the view lies, fractions of the photo
    class_name: str
    probability: float  # 0..1


def look(signatures, path: Path) -> Look:
    """Sends one file through the signatures `preprocess` and `serving_default` of a loaded version.

    Raises:
        ImageError: the file is missing or is no image that the model takes; the message names the file.
    """
    try:
        content = path.read_bytes()
        image_bytes = tf.constant([content])
        seen = signatures["preprocess"](image_bytes=image_bytes)
        answer = signatures["serving_default"](image_bytes=image_bytes)
        photo = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGBA")
    except tf.errors.InvalidArgumentError as error:
        raise ImageError(f"{path}: {_reason(error)}") from error
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error
    over_white = Image.alpha_composite(Image.new("RGBA", photo.size, PAPER), photo).convert("RGB")
    return Look(
        name=path.name,
        photo=over_white,
        view=Image.open(io.BytesIO(seen["view_bytes"].numpy()[0])),
        box=tuple(seen["box"].numpy()[0].tolist()),
        class_name=answer["class_name"].numpy()[0].decode(),
        probability=float(answer["probabilities"].numpy()[0].max()),
    )


def draw(looks: list[Look], columns: int = 4) -> Image.Image:
    """Lays the looks out in a grid, `columns` a row."""
    columns = min(columns, len(looks))
    cells = [_cell(one) for one in looks]
    width, height = cells[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), PAPER)
    for number, cell in enumerate(cells):
        sheet.paste(cell, (number % columns * width, number // columns * height))
    return sheet


def _cell(one: Look) -> Image.Image:
    cell = Image.new("RGB", (2 * TILE + 3 * MARGIN, TILE + CAPTION + 2 * MARGIN), PAPER)
    pen = ImageDraw.Draw(cell)
    place = Image.new("RGB", (TILE + 2 * MARGIN, TILE + 2 * MARGIN), PAPER)
    photo = ImageOps.contain(one.photo, (TILE, TILE))
    left, top = (place.width - photo.width) // 2, (place.height - photo.height) // 2
    place.paste(photo, (left, top))
    ymin, xmin, ymax, xmax = one.box
    corners = (xmin * photo.width, ymin * photo.height, xmax * photo.width, ymax * photo.height)
    x0, y0, x1, y1 = (round(c) + o for c, o in zip(corners, (left, top, left - 1, top - 1), strict=True))
    ImageDraw.Draw(place).rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=BOX, width=2)
    cell.paste(place)  # what the square reaches outside the place is cut off
    view = one.view.resize((TILE, TILE), Image.Resampling.NEAREST)
    cell.paste(view, (2 * MARGIN + TILE, MARGIN))
    font, small = ImageFont.load_default(16), ImageFont.load_default(11)
    pen.text((MARGIN, MARGIN + TILE + 4), f"{one.class_name} {one.probability:.0%}", fill=INK, font=font)
    pen.text((MARGIN, MARGIN + TILE + 24), one.name, fill=INK, font=small)
    return cell


def _reason(error: tf.errors.InvalidArgumentError) -> str:
    """The line that says what was wrong, without the graph's node names around it."""
    for line in error.message.splitlines():
        if "assertion failed: " in line:
            return line.partition("assertion failed: ")[2].strip(" []").replace("] [", " ")
    return "not an image that can be decoded, or a truncated one"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.contact_sheet", description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the sheet, an image file")
    parser.add_argument("--name", default="fashion_mnist")
    parser.add_argument("--version", type=int, help="default: the newest")
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--columns", type=int, default=4, help="photos a row (default: 4)")
    arguments = parser.parse_args(argv)
    if arguments.columns < 1:
        parser.error("--columns: expected at least 1")
    if arguments.output.suffix.lower() not in Image.registered_extensions():
        parser.error(f"--output {arguments.output}: expected the name of an image file, such as sheet.png")
    try:
        version_dir = newest_or(arguments.models / arguments.name, arguments.version)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    signatures = tf.saved_model.load(str(version_dir)).signatures
    looks, refused = [], 0
    for path in tqdm(arguments.images, desc="looking", unit="photo", disable=not sys.stderr.isatty()):
        try:
            looks.append(look(signatures, path))
        except ImageError as error:
            refused += 1
            tqdm.write(f"left out: {error}", file=sys.stderr)
    if not looks:
        print("error: none of the images could be read; no sheet written", file=sys.stderr)
        return 2
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    draw(looks, arguments.columns).save(arguments.output)
    print(f"wrote {arguments.output}: {len(looks)} photos, version {version_dir.name}")
    return 1 if refused else 0


if __name__ == "__main__":
    raise SystemExit(main())
