"""The one decode gate: the bytes of a photo -> uint8 [224, 224, 3] RGB.

NumPy and Pillow only, because training, the exported model's client and the server all share this file: a photo means the
same pixels everywhere. Photos come from strangers, so formats are on an allow-list, sizes are limited before anything is
decoded, and whatever goes wrong becomes an `ImageError` that says what was found.
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from catdog_jax.errors import CatdogError

SIZE = 224
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MAX_PIXELS = 2**26  # decoded, 192 MiB of RGB; below the size at which Pillow itself begins to warn
MAX_BYTES = 2**28
VERSION = 1  # raised by every change that alters a pixel of what `decode` returns
RECIPE = {"version": VERSION, "width": SIZE, "height": SIZE, "resize": "squash", "filter": "bicubic", "antialias": True}

_TRANSPOSE = {  # EXIF tag 0x0112 (Exif 2.32, table 4) -> what turns the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DECODER_ERRORS = (  # what Pillow's decoders are known to raise on damaged files
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


class ImageError(CatdogError):
    """The bytes are not a photo that can be used. The message gives the reason, without a path."""


class UnreadableError(ImageError):
    """The file is there and the system cannot read it, now: a failing disk or share, or a missing permission."""


def read_photo(path: Path) -> bytes:
    """The bytes of a photo file.

    Raises:
      UnreadableError: the system's error, where it is not that there is no such file.
      ImageError: the file is not there, is not a regular file, or is larger than `MAX_BYTES`.
    """
    try:
        if not path.is_file():
            raise ImageError("expected a file, found " + ("something else" if path.exists() else "nothing"))
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise ImageError(f"expected at most {MAX_BYTES:,} bytes, found more")
    return data


def decode(data: bytes, size: int = SIZE) -> np.ndarray:
    """Decodes a photo, turns it upright, converts it to RGB and squashes it to a square.

    Everything is decoded, so a truncated file is an error and not a half-grey picture. The EXIF orientation is applied;
    of an animation the first frame counts; transparency is composited onto white; 16-bit greys are scaled to 8 bits.
    Embedded colour profiles are ignored, as they were when the ImageNet weights were trained.

    Args:
      data: the bytes of a JPEG, PNG, WebP, BMP or GIF file.
      size: width and height of the result in pixels.

    Returns:
      uint8 [size, size, 3], RGB, resized by bicubic interpolation with antialiasing.

    Raises:
      ImageError: with the reason: empty, of another format, truncated, damaged, or over `MAX_PIXELS`.
    """
    return np.asarray(_resized(data, size))


def open_upright(data: bytes) -> Image.Image:
    """Decodes a photo as `decode` does, at its own size: upright and in RGB.

    Raises:
      ImageError: see `decode`.
    """
    return _resized(data, None)


def _resized(data: bytes, size: int | None) -> Image.Image:
    if not data:
        raise ImageError("expected a photo, found an empty file")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.size)
            image.load()
            upright = to_rgb(_upright(image))
            return upright if size is None else upright.resize((size, size), Image.Resampling.BICUBIC)
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(f"expected {', '.join(FORMATS)}, found {_describe(data)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"expected at most {MAX_PIXELS:,} pixels, found more") from None
    except MemoryError:
        raise ImageError("needs more memory to decode than there is") from None
    except _DECODER_ERRORS as error:
        raise ImageError(f"damaged or truncated: {error or type(error).__name__}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts a decoded picture of any mode to RGB: alpha composited onto white, 16-bit greys scaled, not clipped."""
    if image.mode.startswith("I"):
        image = Image.fromarray(np.rint(np.asarray(image, np.float64) / 257).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise ImageError(f"expected 1 to {MAX_PIXELS:,} pixels, found {width} x {height}")


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(0x0112)
    except _DECODER_ERRORS:  # a broken EXIF block says nothing about the pixels, which decoded
        return image
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image


def _describe(data: bytes) -> str:
    if data.lstrip()[:1] == b"<":
        return "what looks like HTML, XML or SVG"
    return f"unknown content beginning with {data[:8]!r}"
