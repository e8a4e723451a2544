"""Reading pictures: their size from the header alone, their pixels as plain RGB, and why one cannot be used.

Every kind of file (EXIF rotation, transparency, palette, grey, 16 bit, CMYK, animation) comes out as upright 8-bit RGB.
"""

from __future__ import annotations

import importlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from trainer.data.buckets import Box, Bucket, Size
from trainer.messages import Message, say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]  # (H, W, 3)
    Grey = NDArray[np.uint8]  # (H, W)

Colour = tuple[int, int, int]

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif", ".heic", ".heif", ".jxl"})
PLUGINS = {".heic": ("pillow_heif", "pillow-heif"), ".heif": ("pillow_heif", "pillow-heif"),
           ".jxl": ("pillow_jxl", "pillow-jxl-plugin")}  # fmt: skip
MAX_PIXELS = 178_956_970  # 512 MB as RGB; Pillow's own limit before it speaks of a decompression bomb
WHITE: Colour = (255, 255, 255)
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class CannotUse(Exception):
    """A picture that is left out, with the reason for the user."""

    def __init__(self, why: Message) -> None:
        super().__init__(str(why))
        self.why = why


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture (hidden files, such as macOS's `._a.jpg`, are none)."""
    return not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS


def read_size(path: Path) -> Size:
    """Upright width and height, from the header alone. Raises CannotUse with the reason."""
    with _opened(path) as picture:
        return _upright_size(picture)


def load_pixels(
    path: Path, *, box: Box | None = None, bucket: Bucket | None = None, flip: bool = False, alpha_colour: Colour = WHITE
) -> Pixels:
    """The picture, upright, as RGB (H, W, 3) uint8: its `box` resized to `bucket`, mirrored if asked.

    Raises CannotUse with the reason, also where only the pixel data is broken.
    """
    import numpy as np

    with _opened(path) as picture, _reasons():
        whole = _upright_size(picture)
        if bucket is not None and box is not None and picture.format == "JPEG":
            _decode_reduced(picture, box, bucket)
        upright = _to_rgb(picture, alpha_colour)
        turn = _TURNS.get(_orientation(picture))
        if turn is not None:
            upright = upright.transpose(turn)
        if bucket is not None:
            upright = _fit(upright, box or (0, 0, *whole), whole, bucket)
        if flip:
            upright = upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(upright)


def load_opacity(path: Path, *, box: Box, bucket: Bucket, flip: bool = False) -> Grey | None:
    """How opaque the picture is, (H, W) uint8, cut and mirrored as by `load_pixels`; None if it has no transparency.

    Raises CannotUse with the reason.
    """
    import numpy as np

    with _opened(path) as picture, _reasons():
        picture.load()
        if not _has_alpha(picture):
            return None
        whole = _upright_size(picture)
        alpha = picture.convert("RGBA").getchannel("A")
        turn = _TURNS.get(_orientation(picture))
        upright = _fit(alpha if turn is None else alpha.transpose(turn), box, whole, bucket)
        return np.asarray(upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else upright)


def check_pixels(path: Path) -> Message | None:
    """Decode the whole picture and forget it: the reason why it cannot be used, or None."""
    try:
        with _opened(path) as picture, _reasons():
            picture.load()
    except CannotUse as cannot:
        return cannot.why
    return None


# What Pillow's decoders raise over damaged files, each plugin as it likes.
_DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, AttributeError, ArithmeticError,
    RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


@contextmanager
def _reasons() -> Iterator[None]:
    """Turns what Pillow and the system raise over a bad file into CannotUse."""
    try:
        yield
    except _DAMAGE as error:
        raise CannotUse(_reason(error)) from error


def _reason(error: BaseException) -> Message:
    if isinstance(error, PermissionError):
        return say("there is no permission to read it")
    if isinstance(error, FileNotFoundError):
        return say("it is gone")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return say("it is larger than {limit} million pixels; make it smaller", limit=MAX_PIXELS // 1_000_000)
    if isinstance(error, UnidentifiedImageError):
        return say("it is not a picture, or its beginning is broken")
    if isinstance(error, MemoryError):
        return say("there is not enough memory to open it")
    if isinstance(error, OSError) and error.errno is not None:
        return say("the system could not read it ({detail})", detail=error.strerror or str(error))
    return say("it is broken or cut short ({detail})", detail=str(error)[:120] or type(error).__name__)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Opens a picture's header; empty and huge files are refused before any pixel is decoded."""
    with _reasons():
        picture = _open(path)
    with picture:
        yield picture


def _open(path: Path) -> Image.Image:
    _ready()
    if path.stat().st_size == 0:
        raise CannotUse(say("the file is empty"))
    needed = PLUGINS.get(path.suffix.lower())
    if needed and needed[0] not in _plugins():
        raise CannotUse(say("this kind of picture needs the package {package}", package=needed[1]))
    picture = Image.open(path)
    if picture.width * picture.height > MAX_PIXELS:
        picture.close()
        raise Image.DecompressionBombError
    return picture


@cache
def _ready() -> None:
    """Pillow warns at half of its limit; we have one limit and check it ourselves. Odd EXIF blocks are no news."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, MAX_PIXELS)
    _plugins()


@cache
def _plugins() -> frozenset[str]:
    """The optional readers that are installed, made known to Pillow."""
    found = set()
    with suppress(ImportError):
        importlib.import_module("pillow_jxl")
        found.add("pillow_jxl")
    with suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
        found.add("pillow_heif")
    return frozenset(found)


def _orientation(picture: Image.Image) -> int:
    """EXIF's orientation, 1 where there is none; from the header only (a PNG's `getexif` would decode the pixels)."""
    if picture.format == "PNG" and "exif" not in picture.info:
        return 1
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except (OSError, ValueError, SyntaxError, TypeError, KeyError):  # a broken EXIF block: the picture itself is fine
        return 1


def _upright_size(picture: Image.Image) -> Size:
    width, height = picture.size
    return (height, width) if _orientation(picture) >= 5 else (width, height)


def _decode_reduced(picture: Image.Image, box: Box, bucket: Bucket) -> None:
    """Let the JPEG decoder reduce by 2, 4 or 8 where twice the needed pixels remain: several times faster."""
    across, down = (box[2] - box[0]) / bucket.width, (box[3] - box[1]) / bucket.height
    reduce = max(min(across, down) / 2, 1.0)
    picture.draft(None, (int(picture.width / reduce), int(picture.height / reduce)))


def _to_rgb(picture: Image.Image, alpha_colour: Colour) -> Image.Image:
    """Eight-bit RGB; transparency laid on `alpha_colour`."""
    picture.load()
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        return _from_deep_grey(picture)
    if _has_alpha(picture):
        layer = picture.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (*alpha_colour, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _has_alpha(picture: Image.Image) -> bool:
    return "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA", "RGBa", "La")


def _from_deep_grey(picture: Image.Image) -> Image.Image:
    """16-bit (or deeper) grey to RGB: Pillow's own `convert` would clip everything over 255 to white."""
    import numpy as np

    values = np.asarray(picture).astype(np.float64)
    full = 255.0 if values.max(initial=0) <= 255 and not picture.mode.startswith("I;16") else 65535.0
    grey = np.clip(values * (255.0 / full) + 0.5, 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _fit(picture: Image.Image, box: Box, whole: Size, bucket: Bucket) -> Image.Image:
    """The part `box` (in pixels of the `whole` upright picture) resized to the bucket by Lanczos."""
    across, down = picture.width / whole[0], picture.height / whole[1]  # below 1 where the decoder reduced
    part = (box[0] * across, box[1] * down, min(box[2] * across, picture.width), min(box[3] * down, picture.height))
    return picture.resize((bucket.width, bucket.height), Image.Resampling.LANCZOS, box=part, reducing_gap=3.0)
