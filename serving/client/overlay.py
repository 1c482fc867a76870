"""Draw a Grad-CAM map over the photo it belongs to. Pure numpy and Pillow; the UI and the CLI share it.

    explanation, view = client.explain(photo)[0], client.preprocess(photo)[0]
    layout = lay_out(open_photo(photo), view.box)
    if has_evidence(explanation.cam(class_id)):
        picture = paint(layout, explanation.cam(class_id))

A map covers exactly the square that the model saw, which is rarely the whole photo. `lay_out` finds its place.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageDraw, ImageFont

from serving.client.colormaps import diverging, sequential
from serving.client.errors import InvalidInput
from serving.client.images import ImageLike, encode_all
from serving.client.results import Floats

CANVAS_PX = 640  # longest edge of a drawing; small pictures are enlarged to it, large ones reduced
CRISP_BELOW_PX = 160  # smaller pictures keep their square pixels when enlarged
PAD_COLOUR = (236, 236, 236)  # what the model saw beyond the photo's edge
_VEIL = 0.4
PAINTED_RANGE = 0.8  # of the diverging map
_TURNS = {  # what makes a picture of this EXIF orientation upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, eq=False)
class Layout:
    """A photo on its canvas, and where the model looked.

    Attributes:
        image: RGB, the photo and, where the model's square reaches beyond it, a neutral margin.
        square: left, top, right, bottom of the model's square on the canvas, pixels.
    """

    image: Image.Image
    square: tuple[int, int, int, int]


def open_photo(image: ImageLike) -> Image.Image:
    """The picture as the server reads it, so that a map lies in its place: RGB, JPEGs upright, transparency over white.

    Args:
        image: path, encoded bytes, uint8 array or PIL image.

    Raises:
        InvalidInput: it cannot be opened.
    """
    encoded = encode_all(image)[0]
    try:
        with Image.open(io.BytesIO(encoded.data)) as opened:
            # the server turns no other format; MPO is a JPEG that holds further pictures
            return flat(upright(opened) if opened.format in ("JPEG", "MPO") else opened)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"{encoded.name}: cannot be opened as a picture ({error})") from error


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says; the same object where there is nothing to turn.

    Not ImageOps.exif_transpose: that writes the rest of the EXIF block anew, and fails where it is damaged.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, struct.error):  # what Pillow raises on a damaged block
        return image
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def flat(image: Image.Image) -> Image.Image:
    """RGB, 8 bits a channel, transparency laid over white."""
    if image.mode.startswith("I"):  # 16 bits: the upper eight, where Pillow's own conversion would cut off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def lay_out(photo: Image.Image, box: npt.ArrayLike | None = None, *, longest_px: int = CANVAS_PX) -> Layout:
    """Scale a photo to the canvas and find the model's square on it.

    Args:
        photo: upright RGB.
        box: ymin, xmin, ymax, xmax of the square as fractions of the photo, from `preprocess`; may reach outside
            0..1, then the canvas grows by a neutral margin. None: the square is the photo.
        longest_px: longest edge of the canvas, pixels.

    Raises:
        ValueError: the box is not four finite numbers in order.
    """
    ymin, xmin, ymax, xmax = _checked_box((0, 0, 1, 1) if box is None else box)
    width, height = photo.size
    left, top = min(0.0, xmin) * width, min(0.0, ymin) * height
    right, bottom = max(1.0, xmax) * width, max(1.0, ymax) * height
    scale = longest_px / max(right - left, bottom - top)

    def px(value: float, origin: float) -> int:
        return round((value - origin) * scale)

    resample = Image.Resampling.NEAREST if max(width, height) < CRISP_BELOW_PX else Image.Resampling.LANCZOS
    size = (max(1, px(width, 0)), max(1, px(height, 0)))
    canvas = Image.new("RGB", (max(1, px(right, left)), max(1, px(bottom, top))), PAD_COLOUR)
    canvas.paste(photo.resize(size, resample), (px(0, left), px(0, top)))
    x, y = px(xmin * width, left), px(ymin * height, top)
    square = (x, y, max(x + 1, px(xmax * width, left)), max(y + 1, px(ymax * height, top)))
    return Layout(canvas, square)


def has_evidence(cam: Floats) -> bool:
    """Whether the map is anywhere above zero; if not, say so instead of drawing."""
    return bool(np.max(cam, initial=0.0) > 0.0)


def paint(layout: Layout, cam: Floats, *, opacity: float = 0.6) -> Image.Image:
    """Lay the evidence for a class over the photo: dark blue where there is none, yellow where it is strongest.

    Args:
        layout: from `lay_out`.
        cam: (h, w), any unit; its maximum takes the last colour, what is below zero counts as zero.
        opacity: 0..1, of the map over the photo.

    Returns:
        RGB of the canvas's size. A map without evidence leaves the photo as it is.
    """
    if not has_evidence(cam):
        return layout.image.copy()
    values = smooth(np.maximum(cam, np.float32(0)), _size(layout)) / np.max(cam)
    return _blend(layout, sequential(values), np.full_like(values, _checked_opacity(opacity)))


def paint_contrast(layout: Layout, contrast: Floats, *, opacity: float = 0.8) -> Image.Image:
    """Lay a contrast over the photo: orange for the first class, purple for the second, pale where neither leads.

    Args:
        layout: from `lay_out`.
        contrast: (h, w), signed; the largest distance from zero takes the last colour on its side.
        opacity: 0..1, of the strongest colour over the photo.

    Returns:
        RGB of the canvas's size. A contrast of zeros leaves the photo as it is.
    """
    strongest = np.max(np.abs(contrast), initial=0.0)
    if strongest == 0:
        return layout.image.copy()
    values = smooth(contrast, _size(layout)) / strongest
    # A veil at zero, or the sign's change would be a hard line on a dark photo; the strongest colour stays light enough
    # to be seen there too.
    alpha = _checked_opacity(opacity) * (_VEIL + (1 - _VEIL) * np.abs(values))
    return _blend(layout, diverging(PAINTED_RANGE * values), alpha)


def smooth(grid: Floats, size: tuple[int, int]) -> Floats:
    """A map enlarged bicubically to (width, height), never beyond the grid's own range: (h, w) -> (height, width)."""
    image = Image.fromarray(np.ascontiguousarray(grid, dtype=np.float32))
    enlarged = np.asarray(image.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    clipped: Floats = np.clip(enlarged, np.min(grid), np.max(grid))
    return clipped


def draw_grid(grid: Floats, *, signed: bool = False, cell_px: int = 96) -> Image.Image:
    """The map as it is, one square a value with its number: h x w cells.

    Args:
        grid: (h, w).
        signed: colours of a contrast (purple, white, orange) instead of those of evidence.
        cell_px: edge of a cell, pixels.
    """
    strongest = float(np.max(np.abs(grid), initial=0.0)) or 1.0
    colours = diverging(grid / strongest) if signed else sequential(np.maximum(grid, 0) / strongest)
    rows, columns = grid.shape
    image = Image.fromarray(colours).resize((columns * cell_px, rows * cell_px), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(cell_px / 5)
    for row in range(rows):
        for column in range(columns):
            centre = ((column + 0.5) * cell_px, (row + 0.5) * cell_px)
            ink = "black" if np.dot(colours[row, column], (0.299, 0.587, 0.114)) > 140 else "white"
            draw.text(centre, f"{grid[row, column]:.2f}", fill=ink, font=font, anchor="mm")
    return image


def _blend(layout: Layout, colours: npt.NDArray[np.uint8], alpha: npt.NDArray[np.floating]) -> Image.Image:
    """The photo in grey under the colours, so that every colour belongs to the map, and in colour around them."""
    painted = layout.image.copy()
    under = layout.image.crop(layout.square).convert("L").convert("RGB")
    mask = Image.fromarray(np.rint(np.clip(alpha, 0, 1) * 255).astype(np.uint8))
    painted.paste(Image.composite(Image.fromarray(colours), under, mask), layout.square[:2])
    return painted


def _size(layout: Layout) -> tuple[int, int]:
    left, top, right, bottom = layout.square
    return right - left, bottom - top


def _checked_opacity(opacity: float) -> float:
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity: expected 0..1, got {opacity}")
    return opacity


def _checked_box(box: npt.ArrayLike) -> tuple[float, float, float, float]:
    values = np.asarray(box, dtype=np.float64)
    if values.shape != (4,) or not np.all(np.isfinite(values)) or not (values[0] < values[2] and values[1] < values[3]):
        raise ValueError(
            f"box: expected ymin, xmin, ymax, xmax with ymin < ymax and xmin < xmax, got {values.tolist()}"
        )
    ymin, xmin, ymax, xmax = values.tolist()
    return ymin, xmin, ymax, xmax
