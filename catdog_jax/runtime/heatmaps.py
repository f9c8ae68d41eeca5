"""Where in a photo the evidence for its verdict lies: the exported model's heat map over the photo, as a picture."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from catdog_jax.files import atomic
from catdog_jax.photos import decoding
from catdog_jax.photos.recipe import DecodingRecipe

LEAST_SCALE = 12.25  # the colours are at their strongest here or higher, so that next to no evidence looks like none
LONGEST_SIDE = 1024  # of an overlay, in pixels
_STEM_BYTES = 200  # of a photo's name that its overlay keeps; names end at 255 bytes on most systems
_FAINT, _STRONG = np.array([255, 200, 0, 0.0]), np.array([255, 40, 0, 165.0])  # RGBA; page.js paints in the same


def tint(cells: np.ndarray, second: bool) -> np.ndarray:
    """The colours of a heat map.

    The cells, float32 [grid, grid], are contributions to the logit of the second class, as the model
    gives them; what speaks against the verdict, the `second` class or the first, is not shown.
    The colours are uint8 [grid, grid, 4], RGBA: from transparent over yellow to red.
    """
    evidence = cells if second else -cells
    strength = np.clip(evidence, 0, None) / max(LEAST_SCALE, float(np.abs(cells).max()))
    return np.rint(_FAINT + strength[..., None] * (_STRONG - _FAINT)).astype(np.uint8)


def overlay(
    picture: Image.Image, cells: np.ndarray, second: bool, recipe: DecodingRecipe, longest: int = LONGEST_SIDE
) -> bytes:
    """A picture, at most `longest` pixels wide and high, under its heat map, as PNG.

    `recipe` is how the model saw it: of a photo that was cropped the map lies over its middle. See `tint` for the
    other arguments.
    """
    picture = picture.convert("RGB")  # a copy
    picture.thumbnail((longest, longest))
    heat = _placed(Image.fromarray(tint(cells, second)), picture.size, recipe)
    buffer = io.BytesIO()
    Image.alpha_composite(picture.convert("RGBA"), heat).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def _placed(heat: Image.Image, size: tuple[int, int], recipe: DecodingRecipe) -> Image.Image:
    """The colours of the square where it lies in a picture of a size, RGBA; page.js does the same."""
    left, upper, right, lower = recipe.taken(size)
    across, down = round(right - left), round(lower - upper)
    if recipe.resize == "letterbox":
        across = down = max(size)  # it reaches beyond the picture
    square = heat.resize((across, down), Image.Resampling.BICUBIC)
    left, upper = (size[0] - across) // 2, (size[1] - down) // 2
    return square.crop((-left, -upper, size[0] - left, size[1] - upper))


class Folder:
    """A folder of overlays: `write` names each after its photo, and two photos of one name differently."""

    def __init__(self, path: Path, recipe: DecodingRecipe):
        """Nothing is created before the first overlay. `recipe` is the model's."""
        self._recipe = recipe
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
        content = overlay(decoding.preview(data, LONGEST_SIDE), cells, second, self._recipe)
        name = next(name for name in _names(path) if name.casefold() not in self._taken)
        self._taken.add(name.casefold())
        atomic.write_bytes(self._path / name, content)
        return self._path / name


def _names(photo: Path) -> Iterator[str]:
    stem = photo.stem.encode("utf-8", "surrogateescape")[:_STEM_BYTES].decode("utf-8", "ignore") or "photo"
    yield f"{stem}.png"
    yield from (f"{stem}-{i}.png" for i in itertools.count(2))
