"""The only way from the bytes of a photo to pixels, uint8 [size, size, 3] RGB, by a recipe (see `recipe`).

Training, the exported model's client and the server share this file, so that a photo means the same
pixels everywhere; it needs NumPy and Pillow alone (pillow-heif for HEIC). Photos come from strangers. So formats are on an
allow-list, sizes are limited before anything is decoded, and whatever goes wrong becomes an
`ImageError` that says what was found.
"""

import contextlib
import ctypes
import functools
import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin

from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic
from catdog_jax.photos import av1
from catdog_jax.photos.recipe import FILL, REDUCED_TO, DecodingRecipe, Extent

HEIC = "HEIF"  # needs the extra `heic`


class Format(NamedTuple):
    """A format on the allow-list.

    Attributes:
      suffixes: of files that folders are searched for.
      start: a pattern of the first bytes.
      pixels: as many at most, where its decoder takes more memory than others; else `MAX_PIXELS`.
    """

    suffixes: tuple[str, ...]
    start: bytes
    pixels: int | None = None


FORMATS = {  # as Pillow calls them
    "JPEG": Format((".jpg", ".jpeg", ".jpe", ".jfif"), rb"\xff\xd8\xff"),
    "PNG": Format((".png",), rb"\x89PNG\r\n\x1a\n"),
    "WEBP": Format((".webp",), rb"RIFF....WEBP"),
    "BMP": Format((".bmp",), rb"BM....\0\0\0\0"),
    "GIF": Format((".gif",), rb"GIF8"),
    "TIFF": Format((".tif", ".tiff"), rb"II\*\0|MM\0\*", 3 * 2**24),
    "AVIF": Format((".avif",), rb"....ftypavi[fs]", 3 * 2**24),
    HEIC: Format((".heic", ".heif", ".hif"), rb"....ftyp(?:hei[cxms]|hev[cx]|mif1|msf1)", 3 * 2**24),
}
SUFFIXES = {suffix: name for name, form in FORMATS.items() for suffix in form.suffixes}
MAX_PIXELS = 2**26  # decoded, 256 MiB of RGB, as Pillow pads it; below the size at which it refuses by itself
MAX_BYTES = 2**28
MAX_SCANS = 100  # of a JPEG; a progressive one has some ten

_TRANSPOSE = {  # EXIF tag 0x0112 (Exif 2.32, table 4) -> what turns the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MEANT = ("JPEG", "PNG", "GIF", "TIFF", "AVIF", HEIC)  # what begins like these is meant to be a photo
_BEGINS = {name: re.compile(form.start, re.DOTALL) for name, form in FORMATS.items()}
# How pictures begin whose format is not taken: JPEG XL, JPEG 2000, Canon's raw files
_OTHERS = re.compile(rb"\xff\x0a|\0\0\0\x0c(?:JXL|jP) |....ftypcrx", re.DOTALL)
# Of TIFF: what photos are stored in, and decoders that take no memory of their own
_TIFF_COMPRESSIONS = {"raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "jpeg"}
_TILE = (322, 323)  # TIFF's tags of a tile's width and height
_TILE_PIXELS = 2**22
_CAMERA = {"MPO": "JPEG"}  # a JPEG with further JPEGs behind it; the first is the photo
_BAND = 2**22  # pixels that are composited at once
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # of a JPEG; not a stuffed zero, nor a restart
_REMARKS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)  # in the form of `warnings.filters`
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
    Warning,
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
        data = atomic.read_regular(path, MAX_BYTES)
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror or error}") from None
    if data is None:
        raise ImageError(f"expected at most {MAX_BYTES:,} bytes, found more")
    return data


def is_picture(path: Path) -> bool:
    """Whether a file begins like a picture of any format, taken here or not; False also where it cannot be read."""
    start = _start(path)
    return format_of(start) is not None or _OTHERS.match(start) is not None


def is_taken(path: Path) -> bool:
    """Whether a file is a photo by its suffix or, where it has none, by its first bytes; and its format can be decoded."""
    suffix = path.suffix.lower()
    name = SUFFIXES.get(suffix) if suffix else format_of(_start(path))
    return name is not None and (name != HEIC or has_heic())


def format_of(start: bytes) -> str | None:
    """Which of `FORMATS` bytes begin like."""
    return next((name for name, begins in _BEGINS.items() if begins.match(start)), None)


@functools.cache
def has_heic() -> bool:
    """Whether HEIC, as phones write it, can be decoded here."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    return True


def _start(path: Path) -> bytes:
    try:
        if not path.is_file():
            return b""
        with open(path, "rb") as file:
            return file.read(16)
    except OSError:
        return b""


class Photo(NamedTuple):
    """A decoded photo at its own size.

    Attributes:
      image: upright, RGB.
      format: what the bytes are, one of `FORMATS`, whatever the file's name says.
    """

    image: Image.Image
    format: str


def check_photos(photos: np.ndarray, size: int) -> None:
    """Checks that an array is a stack of what `decode` gives: the network has an answer to any pixels, a wrong one.

    Raises:
      CatdogError: it is not uint8 [N, size, size, 3].
      TypeError: it is no array.
    """
    if not hasattr(photos, "dtype"):
        raise TypeError(f"photos: expected an array, found {type(photos).__name__}. Give np.stack of decoded photos.")
    if photos.dtype != np.uint8 or photos.ndim != 4 or photos.shape[1:] != (size, size, 3):
        expected = f"uint8 [N, {size}, {size}, 3]"
        raise CatdogError(f"photos: expected {expected}, found {photos.dtype} {[*photos.shape]}. Use decoding.decode.")


def decode(data: bytes, recipe: DecodingRecipe) -> np.ndarray:
    """Decodes a photo, see `load`, and makes it the square of a recipe.

    The recipe is that of the features, the head or the model that the pixels are for: none is the
    default, because another one's pixels are wrong and look right.

    Returns:
      uint8 [size, size, 3], RGB.

    Raises:
      ImageError: see `load`.
    """
    with _refusing(data), _opened(data) as image:
        extent = _scaled(image, recipe) if recipe.version > 1 else None
        image.load()
        if extent is None:
            return square(to_rgb(upright(image)), recipe)
        # Turned last, because the part of a pixel at its edges would turn with it
        return square(to_rgb(image), recipe, extent, _turn(image))


def _scaled(image: Image.Image, recipe: DecodingRecipe) -> Extent | None:
    """Sets a JPEG up to be decoded scaled, and tells its extent in the pixels that it then has; None where it is not.

    The decoder computes fewer pixels of each block of 8 x 8, and still reads them all.
    """
    if _CAMERA.get(image.format or "", image.format) != "JPEG":
        return None
    stored = image.size
    width, height = recipe.given(stored)
    drafted = image.draft(None, (round(REDUCED_TO * width), round(REDUCED_TO * height)))
    return None if drafted is None or image.size == stored else drafted[1][2:]


def square(
    image: Image.Image, recipe: DecodingRecipe, extent: Extent | None = None, turn: Image.Transpose | None = None
) -> np.ndarray:
    """A picture as the model sees it: RGB -> uint8 [size, size, 3].

    `extent` is its width and height, where they are no whole pixels; `turn` is what turns it upright, where it is not.
    """
    extent = extent or image.size
    gap = REDUCED_TO if recipe.version > 1 else None
    fitted = image.resize(recipe.given(extent), Image.Resampling.BICUBIC, recipe.taken(extent), gap)
    if turn is not None:
        fitted = fitted.transpose(turn)
    if recipe.resize == "letterbox":
        whole = Image.new("RGB", (recipe.size, recipe.size), FILL)
        whole.paste(fitted, ((recipe.size - fitted.width) // 2, (recipe.size - fitted.height) // 2))
        return np.asarray(whole)
    return np.asarray(fitted)


def load(data: bytes) -> Photo:
    """Decodes a photo, turns it upright and converts it to RGB.

    Everything is decoded, so a truncated file is an error and not a half-grey picture. The
    orientation of EXIF is applied, or of XMP where EXIF has none; of an animation or a document the
    first picture counts; transparency is composited onto white; 16-bit greys are scaled to 8 bits.
    Embedded colour profiles are ignored, as they were when the ImageNet weights were trained.

    Raises:
      ImageError: with the reason: empty, of another format, truncated, damaged, or over
        `MAX_PIXELS`, those of its format or `MAX_SCANS`.
    """
    with _refusing(data), _opened(data) as image:
        image.load()
        kind = image.format or ""
        return Photo(to_rgb(upright(image)), _CAMERA.get(kind, kind))


def preview(data: bytes, longest: int) -> Image.Image:
    """A photo to look at: upright, RGB, in its own shape, and no side longer than `longest`.

    It passes the same gates as `load`; a JPEG is decoded at down to an eighth of its size.

    Raises:
      ImageError: see `load`.
    """
    with _refusing(data), _opened(data) as image:
        image.draft(None, (2 * longest, 2 * longest))
        image.load()
        picture = to_rgb(upright(image)).copy()
        picture.thumbnail((longest, longest))
        return picture


def thumbnail(data: bytes, size: int) -> np.ndarray:
    """A photo as a small grey picture, uint8 [size, size]: to compare photos by, not for the network.

    It passes the same gates as `load`; a JPEG is decoded at down to an eighth of its size, which
    is several times as fast.

    Raises:
      ImageError: see `load`.
    """
    with _refusing(data), _opened(data) as image:
        image.draft("L", (2 * size, 2 * size))
        image.load()
        grey = to_rgb(upright(image)).convert("L") if image.mode != "L" else upright(image)
        return np.asarray(grey.resize((size, size), Image.Resampling.BOX))


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """A picture of an allowed format and size, of which nothing but the header is decoded."""
    with Image.open(io.BytesIO(data), formats=decoders(data)) as image:
        form = FORMATS.get(image.format or "")
        _check_size(image.size, form and form.pixels)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            _check_tiff(image)
        yield image


@contextlib.contextmanager
def _refusing(data: bytes) -> Iterator[None]:
    """Turns whatever goes wrong with the bytes of a photo into an `ImageError`."""
    if not data:
        raise ImageError("expected a photo, found an empty file")
    _check_scans(data)
    _hush()
    try:
        _check_stream(data)
        yield
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        form = format_of(data)
        if form in _MEANT and (form != HEIC or has_heic()):
            raise ImageError("damaged or truncated: its header cannot be read") from None
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
        image = image.convert("I").point(np.rint(np.arange(2**16) / 257).astype(int).tolist(), "L")
        image.info.pop("transparency", None)  # a grey of 16 bits
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Composites in bands, because whole copies of a large picture would take a gigabyte."""
    rgb = Image.new("RGB", image.size)
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        band = image.crop(box).convert("RGBA")
        rgb.paste(Image.alpha_composite(Image.new("RGBA", band.size, "white"), band).convert("RGB"), box)
    return rgb


def _check_scans(data: bytes) -> None:
    """Counts a JPEG's scans: each may cost a pass over all pixels and hardly a byte (libjpeg-turbo's "progressive bomb").

    A file that has no more of their markers, wherever they are, has no more scans. Counting those is
    some thirty times as fast as following the segments, and holds up no other thread.
    """
    if not data.startswith(b"\xff\xd8") or _scan_markers(data) <= MAX_SCANS:
        return
    scans, place = 0, 2
    while scans <= MAX_SCANS and (marker := _MARKER.search(data, place)):
        place = marker.end()
        match marker[1]:
            case b"\xd9":  # the end
                break
            case b"\x01" | b"\xd8":  # without a length
                continue
            case b"\xda":
                scans += 1
        place += int.from_bytes(data[place : place + 2])
    if scans > MAX_SCANS:
        raise ImageError(f"expected a JPEG of at most {MAX_SCANS} scans, found more")


def _scan_markers(data: bytes) -> int:
    """How often the two bytes of a scan's marker stand in the data, in numbers of 16 bits from an even place or an odd one."""
    pairs = (np.frombuffer(data, ">u2", (len(data) - start) // 2, start) for start in (0, 1) if len(data) > start + 1)
    return sum(int(np.count_nonzero(pair == 0xFFDA)) for pair in pairs)


def decoders(data: bytes) -> tuple[str, ...]:
    """The formats to try: HEIC's decoder, which is loaded when it is needed, for nothing else."""
    heic = data[4:8] == b"ftyp" and has_heic()
    return tuple(name for name in FORMATS if name != HEIC or heic)


def _check_stream(data: bytes) -> None:
    """Refuses an AVIF whose stream is larger than it says: the decoder would make room for it."""
    if data[4:8] != b"ftyp" or (format_of(data) == HEIC and b"av01" not in data):
        return
    try:
        pixels = av1.largest(data)
    except av1.StreamError as error:
        raise ImageError(str(error)) from None
    most = min(MAX_PIXELS, FORMATS["AVIF"].pixels or MAX_PIXELS)
    if pixels > most:
        raise ImageError(f"expected at most {most:,} pixels, found a stream of {pixels:,}")


def _check_tiff(image: TiffImagePlugin.TiffImageFile) -> None:
    """Refuses what is no photo, and what would take more memory than its size tells."""
    compression = image.info.get("compression")
    if compression not in _TIFF_COMPRESSIONS:
        raise ImageError(f"expected a TIFF with no compression, LZW, Deflate, JPEG or PackBits, found {compression}")
    if image.mode in ("F", "I", "LAB"):
        raise ImageError(f"expected a TIFF of 8 or 16 bits in grey, RGB or CMYK, found mode {image.mode}")
    width, height = (int(image.tag_v2.get(tag, 1)) for tag in _TILE)
    _check_size((width, height), _TILE_PIXELS)


@functools.cache
def _hush_libraries() -> None:
    """Keeps what Pillow logs and what libtiff prints of damage off stderr."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with contextlib.suppress(AttributeError, OSError):  # where libtiff is not a library of its own
        ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


def _hush() -> None:
    """Keeps Pillow's warnings of damage off stderr, and from being errors: real damage raises by itself.

    The filter stays, because `warnings.catch_warnings` is not safe among threads.
    """
    _hush_libraries()
    if warnings.filters[:1] != [_REMARKS]:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _check_size(size: tuple[int, int], most: int | None = None) -> None:
    width, height = size
    most = min(most or MAX_PIXELS, MAX_PIXELS)
    if width < 1 or height < 1 or width * height > most:
        raise ImageError(f"expected 1 to {most:,} pixels, found {width} x {height}")


def upright(image: Image.Image) -> Image.Image:
    """A picture turned as its EXIF note says; one without a note, or with a broken one, stays as it is."""
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        orientation: Any = image.getexif().get(0x0112)
    except _DECODER_ERRORS:  # a broken EXIF block says nothing about the pixels, which decoded
        return None
    return _TRANSPOSE.get(orientation)


def _describe(data: bytes) -> str:
    if format_of(data) == HEIC and not has_heic():
        return "HEIC, which needs one more package: pip install 'catdog-jax[heic]'"
    if data.lstrip()[:1] == b"<":
        return "what looks like HTML, XML or SVG"
    return f"unknown content beginning with {data[:8]!r}"
