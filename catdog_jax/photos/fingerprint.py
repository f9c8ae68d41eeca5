"""The fingerprint of features: everything that decides their bytes, and travels with them into heads and models."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catdog_jax.config import Preprocessing
from catdog_jax.errors import CatdogError
from catdog_jax.photos.recipe import FIRST, DecodingRecipe


class FingerprintError(CatdogError):
    """A directory holds features that were made otherwise; the message names the first field that differs."""


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Everything that decides the bytes of features. A field is None where a file does not say it.

    Attributes:
      weights_sha256: the hash of the convolutions' weights.
      preprocessing: what the weights expect of pixels.
      preprocessing_version: the version of that code.
      image: how photos were decoded, as `DecodingRecipe.to_json` has it.
      pool: how the cells were pooled.
      views: which views of each photo there are, in their order in the arrays.
      dtype: the type of the stored features.
      precision: the type that the convolutions computed in. Their algorithm is not here: it differs
        by rounding far below float16.
      shard_size: photos a shard.
      classes: the names of the two classes.
      inputs: the number of photos.
      inputs_sha256: `Dataset.inputs_sha256`.
      others: fields that a newer version wrote; they are kept as they are.
    """

    weights_sha256: str | None = None
    preprocessing: Preprocessing | None = None
    preprocessing_version: int | None = None
    image: Mapping[str, Any] | None = None
    pool: str | None = None
    views: tuple[str, ...] | None = None
    dtype: str | None = None
    precision: str | None = None
    shard_size: int | None = None
    classes: tuple[str, ...] | None = None
    inputs: int | None = None
    inputs_sha256: str | None = None
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def recipe(self) -> DecodingRecipe:
        """How photos were decoded; the first recipe, where `image` does not say.

        Raises:
          CatdogError: it is none that this version follows; the field is named.
        """
        return FIRST if self.image is None else DecodingRecipe.from_json(self.image, "fingerprint: image")

    @classmethod
    def from_json(cls, value: object) -> "Fingerprint":
        """Reads what `to_json` gave.

        Raises:
          CatdogError: it is no JSON object, or a field is of another type; the field is named.
        """
        if not isinstance(value, dict):
            raise CatdogError(f"fingerprint: expected a JSON object, found {type(value).__name__}.")
        for name, kind in _KINDS.items():
            if name in value and not _is(value[name], kind):
                raise CatdogError(f"fingerprint: {name}: expected {_SAID[kind]}, found {value[name]!r}.")
        known: dict[str, Any] = {
            name: tuple(value[name]) if kind is list else value[name] for name, kind in _KINDS.items() if name in value
        }
        return cls(**known, others={name: value[name] for name in value if name not in _KINDS})

    def to_json(self) -> dict[str, Any]:
        """The fields that are known, as JSON has them, always in the same order."""
        said = {name: getattr(self, name) for name in _KINDS}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in said.items()
            if value is not None
        } | {**self.others}

    def check_same(self, found: "Fingerprint", where: object) -> None:
        """Checks that features of this fingerprint may lie beside those that are there.

        Raises:
          FingerprintError: naming the first field that differs.
        """
        if difference := first_difference(self.to_json(), found.to_json()):
            name, here, there = difference
            raise FingerprintError(
                f"{where}: holds features of another fingerprint: {name} is {there!r}, expected {here!r}. "
                f"Choose another --out, or remove the directory to extract again."
            )

    def check_compatible(self, found: "Fingerprint") -> None:
        """Checks that a head that was trained on features of this fingerprint may be given those of another.

        Raises:
          CatdogError: naming the first field that differs.
        """
        needed = ({name: prints.to_json().get(name) for name in _COMPATIBLE} for prints in (self, found))
        if difference := first_difference(*needed):
            name, mine, other = difference
            raise CatdogError(
                f"features: expected {name} = {mine!r}, as the head was trained with, found {other!r}. "
                "Use the head's own feature cache, or train again."
            )


def first_difference(here: Mapping[str, Any], there: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first field that differs, as JSON has it, and its two values; of the recipe of decoding "image.resize" and such."""
    for name in {**here, **there}:
        one, other = here.get(name), there.get(name)
        if one == other:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping) and (inner := first_difference(one, other)):
            return f"{name}.{inner[0]}", *inner[1:]
        return name, one, other
    return None


# The type of each field in JSON, in the order in which files have them
_KINDS: dict[str, type] = {
    "weights_sha256": str,
    "preprocessing": str,
    "preprocessing_version": int,
    "image": dict,
    "pool": str,
    "views": list,
    "dtype": str,
    "precision": str,
    "shard_size": int,
    "classes": list,
    "inputs": int,
    "inputs_sha256": str,
}
_SAID = {str: "a text", int: "a number", dict: "a JSON object", list: "a list of texts"}
_COMPATIBLE = ("weights_sha256", "preprocessing", "preprocessing_version", "image", "classes")


def _is(value: object, kind: type) -> bool:
    texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return texts if kind is list else isinstance(value, kind)
