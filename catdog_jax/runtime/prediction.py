"""Photos to verdicts: what a photo may be given as, and what the model says of it."""

import base64
import html
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from catdog_jax.errors import UsageError
from catdog_jax.photos import decoding
from catdog_jax.photos.recipe import DEFAULT, DecodingRecipe
from catdog_jax.runtime import decision, heatmaps, inputs
from catdog_jax.runtime.decision import Verdict

_KINDS = "a path, bytes, a PIL image or an array uint8 [H, W, 3]"
_SHOWN_SIDE = 320  # of a photo in a notebook, in pixels


@dataclass(frozen=True, repr=False)
class Prediction:
    """What a model says of a photo. In a notebook it shows itself: the photo under its heat map, and the verdict.

    Attributes:
      verdict: the class, the probabilities, and whether the model is sure.
      heatmap: float32 [grid, grid], what each cell of the photo gives to the logit of the second class, or
        None where it was not asked for or the model has none.
      photo: as it was given.
      recipe: how it was decoded.
    """

    verdict: Verdict
    heatmap: np.ndarray | None = field(compare=False)
    photo: Any = field(compare=False)
    recipe: DecodingRecipe = field(default=DEFAULT, compare=False)

    @property
    def label(self) -> str:
        """The class."""
        return self.verdict.name

    @property
    def probability(self) -> float:
        """The probability of that class."""
        return self.verdict.probability

    @property
    def probabilities(self) -> dict[str, float]:
        """The probability of each class."""
        return self.verdict.probabilities

    @property
    def sure(self) -> bool | None:
        """Whether the model decides; None where its file does not say from which probability on it does."""
        return self.verdict.sure

    @property
    def strangeness(self) -> float | None:
        """How unlike the photos of the training it is; None of a model that does not say."""
        return self.verdict.strangeness

    @property
    def neither(self) -> bool | None:
        """Whether it is so unlike them that it is of neither class; None of a model that does not say."""
        return self.verdict.neither

    def __repr__(self) -> str:
        strange = "" if self.strangeness is None else f", strangeness {self.strangeness:.3f}"
        said = decision.said(self.label, self.sure, self.neither)
        return f"Prediction({said}, probability {self.probability:.4f}{strange})"

    def _repr_html_(self) -> str:
        """The photo under its heat map, and the verdict below it."""
        second = self.label == list(self.probabilities)[1]
        cells = np.zeros((1, 1), np.float32) if self.heatmap is None else self.heatmap
        source = base64.b64encode(
            heatmaps.overlay(upright(self.photo), cells, second, self.recipe, _SHOWN_SIDE)
        ).decode()
        said = f"{decision.said(self.label, self.sure, self.neither)}, {self.probability:.1%}"
        return (
            f'<figure style="display:inline-block;margin:4px"><img alt="" src="data:image/png;base64,{source}">'
            f"<figcaption>{html.escape(said)}</figcaption></figure>"
        )


def is_one(photos: Any) -> bool:
    """Whether this is one photo, not many."""
    return isinstance(photos, str | os.PathLike | bytes | bytearray | memoryview | Image.Image) or (
        isinstance(photos, np.ndarray) and photos.ndim == 3
    )


def many(photos: Any, size: int) -> Iterator[Any]:
    """The photos of a list, of any other iterable, or of an array uint8 [N, size, size, 3].

    Raises:
      TypeError: it is none of these.
      UsageError: an array of another type or shape.
    """
    if isinstance(photos, np.ndarray):
        if photos.dtype != np.uint8 or photos.ndim != 4 or photos.shape[1:] != (size, size, 3):
            raise UsageError(
                f"photos: expected uint8 [H, W, 3] or [N, {size}, {size}, 3], "
                f"found {photos.dtype} {list(photos.shape)}."
            )
    elif not isinstance(photos, Iterable):
        raise TypeError(f"photos: expected {_KINDS}, or a list of those, found {type(photos).__name__}.")
    return iter(photos)


def decoded(numbered: tuple[int, Any], recipe: DecodingRecipe) -> tuple[Any, np.ndarray | decoding.ImageError]:
    """A photo as it was given, and its pixels by the recipe, uint8 [size, size, 3], or why it has none.

    Raises:
      TypeError: it is no photo; the message has its number.
      UsageError: an array of another type or shape.
    """
    number, photo = numbered
    try:
        encoded = _encoded(photo)
        if encoded is not None:
            return photo, decoding.decode(encoded, recipe)
        return photo, decoding.square(upright(photo, f"photos[{number}]"), recipe)
    except decoding.ImageError as error:
        return photo, error


def upright(photo: Any, name: str = "photo") -> Image.Image:
    """A photo in RGB at its own size, turned upright.

    A photo is a path, the bytes of a file, a PIL image, or an array uint8 [H, W, 3] in RGB;
    `name` is what messages call it.

    Raises:
      ImageError: it cannot be read or decoded.
      TypeError: it is none of these.
      UsageError: an array of another type or shape.
    """
    encoded = _encoded(photo)
    if encoded is not None:
        return decoding.load(encoded).image
    match photo:
        case Image.Image():
            try:
                photo.load()  # Pillow decodes a file that it opened when its pixels are asked for
                return decoding.to_rgb(decoding.upright(photo))
            except (OSError, ValueError, SyntaxError) as error:  # of a damaged file
                raise decoding.ImageError(f"damaged or truncated: {error}") from None
        case np.ndarray():
            if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
                raise UsageError(f"{name}: expected uint8 [H, W, 3], RGB, found {photo.dtype} {list(photo.shape)}.")
            return Image.fromarray(photo)
    raise TypeError(f"{name}: expected {_KINDS}, found {type(photo).__name__}.")


def _encoded(photo: Any) -> bytes | None:
    """The bytes of a photo's file; None of pixels. Raises ImageError where the file cannot be read."""
    match photo:
        case str() | os.PathLike():
            if inputs.url(photo):
                raise decoding.ImageError("expected a file, found a URL: nothing is fetched; download it first")
            return decoding.read_photo(Path(photo))
        case bytes() | bytearray() | memoryview():
            return bytes(photo)
    return None


def name(photo: Any) -> str:
    """What a photo is called in messages: its path, or its kind."""
    return os.fspath(photo) if isinstance(photo, str | os.PathLike) else f"photo ({type(photo).__name__})"
