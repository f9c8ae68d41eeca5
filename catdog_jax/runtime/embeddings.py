"""Photos as vectors in a file, and which of them are nearest to another: `catdog embed`, and what `catdog similar` looks in.

NAME.npy holds float32 [N, 512], for NumPy; NAME.json beside it, written last and sealed, says which
row is which photo, what was skipped, which model computed them, and the hash of the array.
"""

import dataclasses
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.files import atomic, sealed
from catdog_jax.photos.recipe import FIRST, DecodingRecipe
from catdog_jax.runtime.predictor import Predictor

FORMAT = 1
_WHAT = "list of the rows of embeddings (of `catdog embed`)"


@dataclass(frozen=True)
class Embeddings:
    """Rows of features that photos can be looked for in.

    Attributes:
      rows: float32 [N, 512].
      ids: what the photo of each row is called.
      weights_sha256: the hash of the convolutions' weights.
      precision: of the model that computed them.
      labels: the name of each row's class; empty where nobody has said.
      hashes: the SHA-256 of the bytes of each photo's file.
      skipped: photos that cannot be read: {"id": …, "reason": …}.
      recipe: how photos were decoded.
    """

    rows: np.ndarray
    ids: Sequence[str]
    weights_sha256: str | None
    precision: str
    labels: Sequence[str] = ()
    hashes: Sequence[str | None] = ()
    skipped: Sequence[dict[str, str]] = field(default=())
    recipe: DecodingRecipe = FIRST

    @functools.cached_property
    def directions(self) -> np.ndarray:
        """The rows, each of length 1."""
        return _unit(self.rows)


@dataclass(frozen=True)
class Neighbour:
    """A photo that is near another.

    Attributes:
      similarity: the cosine of their features, at most 1.
      id: what it is called.
      label: the name of its class; None where nobody has said.
      same: whether its bytes are those of the other; None where that is not known.
    """

    similarity: float
    id: str
    label: str | None
    same: bool | None

    def row(self) -> dict[str, Any]:
        """As it is written: {"similarity", "id", "label", "same"}."""
        return vars(self).copy()


def save(path: Path, embedded: Embeddings) -> None:
    """Writes rows, and the list that makes them count; each file atomically, the list last. Labels are not kept.

    Raises:
      CatdogError: a file cannot be written.
      UsageError: the name does not end with .npy.
    """
    listed = list_of(path)
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(embedded.rows, np.float32), allow_pickle=False)
    data = buffer.getvalue()
    atomic.write_bytes(path, data)
    described = {
        "format": FORMAT,
        "rows_sha256": atomic.sha256(data),
        "shape": list(embedded.rows.shape),
        "weights_sha256": embedded.weights_sha256,
        "precision": embedded.precision,
        "recipe": embedded.recipe.to_json(),
        "ids": list(embedded.ids),
        "source_sha256": list(embedded.hashes),
        "skipped": list(embedded.skipped),
    }
    sealed.write_sealed_json(listed, described)


def list_of(path: Path) -> Path:
    """The list beside a file of embeddings; raises UsageError where its name does not end with .npy."""
    if path.suffix != ".npy":
        raise UsageError(
            f"{path}: expected the name of embeddings, .npy, found {path.suffix or 'no suffix'!r}. Add .npy."
        )
    return path.with_suffix(".json")


def load(path: Path) -> Embeddings:
    """Reads what `save` wrote.

    Raises:
      CatdogError: a file is missing, damaged or of another format, or the two do not belong together.
      UsageError: the name does not end with .npy.
    """
    listed = list_of(path)
    described = sealed.read_sealed_json(listed, _WHAT)
    if described.get("format") != FORMAT:
        raise CatdogError(f"{listed}: expected format {FORMAT}, found {described.get('format')!r}. Embed again.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CatdogError(f"{path}: expected embeddings, found: {error.strerror}. Run `catdog embed` again.") from None
    if atomic.sha256(data) != described.get("rows_sha256"):
        raise CatdogError(f"{path}: expected the rows that {listed} lists, found others. Run `catdog embed` again.")
    rows = np.load(io.BytesIO(data), allow_pickle=False)
    # Earlier versions knew one
    recipe = DecodingRecipe.from_json(described.get("recipe", FIRST.to_json()), f"{listed}: recipe")
    return Embeddings(
        rows,
        described["ids"],
        described["weights_sha256"],
        described["precision"],
        hashes=described["source_sha256"],
        skipped=described["skipped"],
        recipe=recipe,
    )


def check_comparable(among: Embeddings, where: object, model: Predictor) -> None:
    """Checks that rows are of the weights of a model, and of photos that became squares as its photos do.

    The version of the recipe may differ, as the precision may: the rows are nearly the same.

    Raises:
      CatdogError: naming what differs.
    """
    expected = model.metadata.get("weights_sha256")
    if among.weights_sha256 != expected:
        raise CatdogError(
            f"{where}: expected features of the model's weights, sha256 {str(expected)[:12]}…, found those of "
            f"{str(among.weights_sha256)[:12]}…. Name the model that they belong to with --model, or embed again."
        )
    field = dataclasses.replace(model.recipe, version=among.recipe.version).difference(among.recipe)
    if field:
        raise CatdogError(
            f"{where}: expected photos of {field} {getattr(model.recipe, field)}, as the model has it, found "
            f"{getattr(among.recipe, field)}. Name the model that they belong to with --model, or embed again."
        )


def nearest(rows: np.ndarray, among: Embeddings, top: int, hashes: Sequence[str | None] = ()) -> list[list[Neighbour]]:
    """The nearest photos to each row, by the cosine, nearest first.

    Args:
      rows: float32 [M, 512].
      among: where to look.
      top: how many.
      hashes: the SHA-256 of the bytes of each row's photo, as far as they are known.
    """
    cosines = _unit(rows) @ among.directions.T
    found = []
    for number, row in enumerate(cosines):
        own = hashes[number] if hashes else None
        order = np.argsort(-row, kind="stable")[:top]
        found.append(
            [
                Neighbour(
                    min(1.0, round(float(row[i]), 6)),
                    among.ids[i],
                    among.labels[i] if among.labels else None,
                    own == among.hashes[i] if own and among.hashes else None,
                )
                for i in order
            ]
        )
    return found


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, np.float32(1))
