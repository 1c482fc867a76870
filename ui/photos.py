"""A picture as it came in, made ready: upright for the eye, small enough for the server, never silently changed."""

import hashlib
import io
from dataclasses import dataclass, field

from PIL import Image, ImageOps

from ui.advice import Advice

MAX_UPLOAD_BYTES = 10 * 1024 * 1024
# The gateway takes 10 MB in one request, and base64 makes 4 bytes of 3.
MAX_SENT_BYTES = 7 * 1024 * 1024
MAX_SENT_PIXELS = 16_000_000
# Beyond this a picture is not opened at all: decoding it would take the page's memory.
MAX_OPENED_PIXELS = 64_000_000
SENT_SIDE = 2048
SHOWN_SIDE = 896
SERVED_FORMATS = ("PNG", "JPEG", "GIF", "BMP")
READ_FORMATS = (*SERVED_FORMATS, "WEBP")


class PhotoError(Exception):
    """The file is not a picture the page can use; `advice` says so in words."""

    def __init__(self, advice: Advice) -> None:
        super().__init__(advice.title)
        self.advice = advice


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture, ready to be sent and shown.

    Attributes:
        name: what to call it.
        data: the encoded bytes that are sent.
        shown: upright RGB picture for the screen, at most SHOWN_SIDE wide and high.
        width, height: pixels of the upright original.
        notes: what was changed on the way, in words; empty when the file is sent as it came.
        true_label: the label from the data set, for gallery pictures.
    """

    name: str
    data: bytes = field(repr=False)
    shown: Image.Image = field(repr=False)
    width: int
    height: int
    notes: tuple[str, ...] = ()
    true_label: str | None = None

    @property
    def digest(self) -> str:
        """A short name for the bytes that are sent."""
        return hashlib.sha256(self.data).hexdigest()[:16]


def read(name: str, raw: bytes, true_label: str | None = None) -> Picture:
    """Make a file ready.

    Args:
        name: its name, for messages.
        raw: its bytes.
        true_label: what it is known to show.

    Raises:
        PhotoError: it is empty, too large, or not a picture.
    """
    if not raw:
        raise PhotoError(Advice(f"“{name}” is empty", "Choose a file that holds a picture."))
    if len(raw) > MAX_UPLOAD_BYTES:
        size = f"{len(raw) / 2**20:.1f} MB"
        raise PhotoError(
            Advice(f"“{name}” is too large: {size}", "At most 10 MB can be sent. Scale it down, or save it as JPEG.")
        )
    image, kind = _decode(name, raw)
    upright = ImageOps.exif_transpose(image)
    data, notes = _sendable(raw, kind, upright)
    return Picture(name, data, _shown(upright), upright.width, upright.height, notes, true_label)


def _decode(name: str, raw: bytes) -> tuple[Image.Image, str]:
    try:
        with Image.open(io.BytesIO(raw), formats=READ_FORMATS) as image:
            pixels = image.width * image.height
            if pixels > MAX_OPENED_PIXELS:
                raise PhotoError(
                    Advice(
                        f"“{name}” has too many pixels: {image.width} x {image.height}",
                        f"At most {MAX_OPENED_PIXELS // 1_000_000} megapixels can be opened. Scale it down first.",
                    )
                )
            image.load()
            return image.copy(), image.format or ""
    except Image.DecompressionBombError as error:
        raise PhotoError(Advice(f"“{name}” has too many pixels", "Scale it down first.", detail=str(error))) from None
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises on broken files
        raise PhotoError(
            Advice(
                f"“{name}” is not a picture this page can read",
                "Choose a PNG, JPEG, GIF, BMP or WebP file. If it should be one, it may be damaged: "
                "open it elsewhere and save it again.",
                detail=str(error).split("<_io")[0].strip(),
            )
        ) from None


def _sendable(raw: bytes, kind: str, upright: Image.Image) -> tuple[bytes, tuple[str, ...]]:
    """The file as it is, where the server takes it; else a copy, and the words that say so."""
    too_large = len(raw) > MAX_SENT_BYTES or upright.width * upright.height > MAX_SENT_PIXELS
    if kind in SERVED_FORMATS and not too_large:
        return raw, ()
    copy = _flat(upright)
    copy.thumbnail((SENT_SIDE, SENT_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if too_large:
        copy.save(buffer, "JPEG", quality=92)
        note = (
            f"This photo is larger than the server takes ({upright.width} x {upright.height} pixels, "
            f"{len(raw) / 2**20:.1f} MB), so a copy of {copy.width} x {copy.height} pixels was sent."
        )
    else:
        copy.save(buffer, "PNG")
        note = f"The server does not read {kind} files, so a PNG copy of {copy.width} x {copy.height} pixels was sent."
    return buffer.getvalue(), (note,)


def _shown(upright: Image.Image) -> Image.Image:
    image = _flat(upright)
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
    return image


def _flat(image: Image.Image) -> Image.Image:
    """RGB, transparency laid over white as the served graph does."""
    if image.mode == "RGB":
        return image.copy()
    if image.mode.startswith(("I", "F")):
        return _narrowed(image)
    if "A" in image.mode or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _narrowed(image: Image.Image) -> Image.Image:
    """16 bits a pixel to 8; Pillow's own conversion would cut off at 255 instead of scaling."""
    return image.point(lambda value: value / 256, "F").convert("L").convert("RGB")
