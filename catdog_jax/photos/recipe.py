"""How a photo becomes the square that the network sees, as a value: it travels with features, heads and models.

`decoding` follows it. Whoever has features, a head or a model decodes by the recipe in it, never by
the newest one, so that a photo means the same pixels everywhere.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catdog_jax.errors import CatdogError, UsageError

SIZE = 224  # of the squares that VGG16 was trained on
CELL = 32  # pixels of a side that become one cell of the network's last layer
SMALLEST, LARGEST = 96, 512
VERSIONS = (1, 2)
RESIZES = ("halfway", "squash", "crop", "letterbox")  # the first is the default
REDUCED_TO = 2.0  # version 2: how many times the pixels of the square a reduced photo has at least, along each side
FILL = (124, 116, 104)  # RGB of a letterbox: the mean of ImageNet, which is 0 to weights that subtract it

_ANEW = "Extract and train again."

Extent = tuple[float, float]  # width and height, of which a photo that is decoded scaled may have a part of a pixel


@dataclass(frozen=True)
class DecodingRecipe:
    """How a photo becomes a square, uint8 [size, size, 3], by bicubic interpolation with antialiasing.

    Example:
      >>> DecodingRecipe(size=320, resize="crop").grid
      10

    Attributes:
      version: 1 interpolates the whole photo. 2 reduces a large one first, as long as `REDUCED_TO`
        times the pixels of the square remain: a JPEG while it is decoded, to a half, a quarter or an
        eighth; others, and what is left of a JPEG, by the means of blocks of pixels. It is several
        times as fast, and pixels differ by 1 or 2 of 255. Small photos are the same in both.
      size: of the square, in pixels: a multiple of 32, from 96 to 512.
      resize: "halfway": the longer side is cut to the geometric mean of both, and what is left
        squashed, so that as much is lost at the ends as in shape; "squash": the whole photo, whatever
        its shape; "crop": the square in its middle; "letterbox": the whole photo in its shape, and
        `FILL` beside it.
    """

    version: int = VERSIONS[-1]
    size: int = SIZE
    resize: str = RESIZES[0]

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
          UsageError: one is none of the above.
        """
        for name, (expected, fits) in _expected(self.version, self.size, self.resize).items():
            if not fits:
                raise UsageError(f"--{name}: expected {expected}, found {getattr(self, name)!r}. Choose one of these.")

    @property
    def grid(self) -> int:
        """How many cells a side of the square becomes: 7 of 224 pixels."""
        return self.size // CELL

    def taken(self, extent: Extent) -> tuple[float, float, float, float]:
        """The part of a photo that the square shows: left, upper, right, lower."""
        longest = {"halfway": math.sqrt(extent[0] * extent[1]), "crop": min(extent)}.get(self.resize, max(extent))
        width, height = (min(side, longest) for side in extent)
        left, upper = (extent[0] - width) / 2, (extent[1] - height) / 2
        return left, upper, left + width, upper + height

    def given(self, extent: Extent) -> tuple[int, int]:
        """The width and height, in pixels of the square, that the part which is `taken` gets."""
        if self.resize != "letterbox":
            return self.size, self.size
        longer = max(extent)
        width, height = (max(1, int((2 * self.size * side + longer) // (2 * longer))) for side in extent)
        return width, height

    def to_json(self) -> dict[str, Any]:
        """As fingerprints and models have it."""
        filled = {"fill": list(FILL)} if self.resize == "letterbox" else {}
        return {
            "version": self.version,
            "width": self.size,
            "height": self.size,
            "resize": self.resize,
            "filter": "bicubic",
            "antialias": True,
            **filled,
        }

    @classmethod
    def from_json(cls, value: Any, where: str = "recipe") -> "DecodingRecipe":
        """Reads what `to_json` gave, and nothing else; `where` is what messages call it.

        Raises:
          CatdogError: in one line, with the field.
        """
        if not isinstance(value, Mapping):
            raise CatdogError(f"{where}: expected a JSON object, found {type(value).__name__}.")
        version: Any = value.get("version")
        size: Any = value.get("width")
        resize: Any = value.get("resize")
        if type(version) is int and version > VERSIONS[-1]:
            raise CatdogError(
                f"{where}: version: expected {_either(VERSIONS)}, found {version}. Upgrade: pip install -U catdog-jax."
            )
        for name, (expected, fits) in _expected(version, size, resize).items():
            if not fits:
                field = "width" if name == "size" else name
                raise CatdogError(f"{where}: {field}: expected {expected}, found {_shown(value, field)}. {_ANEW}")
        recipe = cls(version, size, resize)
        wanted = recipe.to_json()
        for name in {**wanted, **value}:
            if name not in value or name not in wanted or not _same(value[name], wanted[name]):
                here, there = (_shown(of, name) for of in (wanted, value))
                raise CatdogError(f"{where}: {str(name)[:100]}: expected {here}, found {there}. {_ANEW}")
        return recipe

    def difference(self, other: "DecodingRecipe") -> str:
        """The first field in which another recipe differs; empty where none does."""
        fields = (field.name for field in dataclasses.fields(self))
        return next((name for name in fields if getattr(self, name) != getattr(other, name)), "")

    def __str__(self) -> str:
        return f"version {self.version}, {self.size} x {self.size} pixels, {self.resize}"


def _expected(version: object, size: object, resize: object) -> dict[str, tuple[str, bool]]:
    """What each field may be, in words, and whether it is."""
    whole = type(size) is int and size % CELL == 0 and SMALLEST <= size <= LARGEST
    return {
        "version": (_either(VERSIONS), type(version) is int and version in VERSIONS),
        "size": (f"a multiple of {CELL} from {SMALLEST} to {LARGEST}", whole),
        "resize": (_either(RESIZES), isinstance(resize, str) and resize in RESIZES),
    }


def _either(choices: tuple[Any, ...]) -> str:
    return f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}"


def _shown(value: Mapping[str, Any], name: str) -> str:
    return repr(value[name])[:100] if name in value else "none"


def _same(one: object, other: object) -> bool:
    """Equality that keeps True apart from 1, which JSON does."""
    return type(one) is type(other) and one == other


DEFAULT = DecodingRecipe()
FIRST = DecodingRecipe(
    version=1, resize="squash"
)  # of features, heads and models that were made before there was a choice
