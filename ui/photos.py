"""A picture as it came in, made ready: upright for the eye, small enough for the server, never silently changed."""

import hashlib
import io
from dataclasses import dataclass, field

from PIL import Image

from serving.client import overlay
from ui.advice import Advice

MAX_UPLOAD_BYTES = 10 * 1024 * 1024
# The gateway takes 10 MB in one request, and base64 makes 4 bytes of 3: 7.5 MB, less what stands around the picture.
MAX_SENT_BYTES = 7 * 1024 * 1024
MAX_SENT_PIXELS = 16_000_000
# Beyond this a picture is not opened at all: decoding it would take the page's memory.
MAX_OPENED_PIXELS = 64_000_000
SENT_SIDE = 2048
SHOWN_SIDE = 896
READ_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")


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
            Advice(
                f"“{name}” is too large: {size}", "At most 10 MB can be uploaded. Scale it down, or save it as JPEG."
            )
        )
    image, kind = _decode(name, raw)
    upright = overlay.upright(image)
    seen = overlay.flat(upright)
    data, notes = _sendable(raw, kind, seen, turned=upright is not image)
    shown = seen.copy()
    shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
    return Picture(name, data, shown, seen.width, seen.height, notes, true_label)


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
            # MPO is a JPEG that holds further pictures, as many phones write them
            return image.copy(), "JPEG" if image.format == "MPO" else image.format or ""
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


def _sendable(raw: bytes, kind: str, seen: Image.Image, *, turned: bool) -> tuple[bytes, tuple[str, ...]]:
    """The file as it is, where the server sees in it what the page shows; else a copy, and the words that say so."""
    too_large = len(raw) > MAX_SENT_BYTES or seen.width * seen.height > MAX_SENT_PIXELS
    server_turns = kind == "JPEG" and b"Exif" in raw[:28]  # it looks no further, and at no other format
    if kind in ("PNG", "JPEG") and (server_turns or not turned) and not too_large:
        return raw, ()
    copy = seen.copy()
    copy.thumbnail((SENT_SIDE, SENT_SIDE), Image.Resampling.LANCZOS)
    copy_kind, data = "PNG", b"" if too_large else _encoded(copy, "PNG")
    if too_large or len(data) > MAX_SENT_BYTES:
        copy_kind, data = "JPEG", _encoded(copy, "JPEG", quality=92)
    reason = "So that the model gets what is shown here"
    if too_large:
        reason = (
            f"Because this photo is larger than the server takes ({seen.width} x {seen.height} pixels, "
            f"{len(raw) / 2**20:.1f} MB)"
        )
    return data, (f"{reason}, a {copy_kind} copy of {copy.width} x {copy.height} pixels was sent.",)


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
