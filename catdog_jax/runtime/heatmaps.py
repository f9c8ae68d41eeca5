"""Where in a photo the evidence for its verdict lies: the exported model's heat map over the photo, as a picture."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from catdog_jax.files import atomic
from catdog_jax.photos import decoding

LEAST_SCALE = 12.25  # the colours are at their strongest here or higher, so that next to no evidence looks like none
LONGEST_SIDE = 1024  # of an overlay, in pixels
_STEM_BYTES = 200  # of a photo's name that its overlay keeps; names end at 255 bytes on most systems
_FAINT, _STRONG = np.array([255, 200, 0, 0.0]), np.array([255, 40, 0, 165.0])  # RGBA; page.js paints in the same


def tint(cells: np.ndarray, second: bool) -> np.ndarray:
    """The colours of a heat map.

    The cells, float32 [7, 7], are contributions to the logit of the second class, as the model
    gives them; what speaks against the verdict, the `second` class or the first, is not shown.
    The colours are uint8 [7, 7, 4], RGBA: from transparent over yellow to red.
    """
    evidence = cells if second else -cells
    strength = np.clip(evidence, 0, None) / max(LEAST_SCALE, float(np.abs(cells).max()))
    return np.rint(_FAINT + strength[..., None] * (_STRONG - _FAINT)).astype(np.uint8)


def overlay(picture: Image.Image, cells: np.ndarray, second: bool, longest: int = LONGEST_SIDE) -> bytes:
    """A picture, at most `longest` pixels wide and high, under its heat map, as PNG; see `tint` for the other arguments."""
    picture = picture.convert("RGB")  # a copy
    picture.thumbnail((longest, longest))
    heat = Image.fromarray(tint(cells, second)).resize(picture.size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    Image.alpha_composite(picture.convert("RGBA"), heat).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


class Folder:
    """A folder of overlays: `write` names each after its photo, and two photos of one name differently."""

    def __init__(self, path: Path):
        """Nothing is created before the first overlay."""
        self._path = path
        self._taken: set[str] = set()

    def write(self, photo: str | Path | bytes, cells: np.ndarray, second: bool) -> Path:
        """Writes the overlay of a photo, over one of an earlier run, and returns its path.

        The photo is its path, or its bytes where it came through stdin.

        Raises:
          ImageError: the photo cannot be read any more.
          CatdogError: the overlay cannot be written.
        """
        path = Path("stdin") if isinstance(photo, bytes) else Path(photo)
        data = photo if isinstance(photo, bytes) else decoding.read_photo(path)
        content = overlay(decoding.load(data).image, cells, second)
        name = next(name for name in _names(path) if name.casefold() not in self._taken)
        self._taken.add(name.casefold())
        atomic.write_bytes(self._path / name, content)
        return self._path / name


def _names(photo: Path) -> Iterator[str]:
    stem = photo.stem.encode("utf-8", "surrogateescape")[:_STEM_BYTES].decode("utf-8", "ignore") or "photo"
    yield f"{stem}.png"
    yield from (f"{stem}-{i}.png" for i in itertools.count(2))
