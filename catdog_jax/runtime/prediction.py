"""Photos through an exported model, and what is printed of them: `catdog predict`."""

import collections
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from rich.text import Text

from catdog_jax.console import console, printable
from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding, folders, prefetch
from catdog_jax.runtime import decision, heatmaps
from catdog_jax.runtime.output import Row
from catdog_jax.runtime.predictor import Predictor

_OWN, _PUBLISHED = Path("run/model.onnx"), Path("artifacts/default/model-int8.onnx")


# Photos by class and sure, both None where they cannot be read
Counts = collections.Counter[tuple[str | None, bool | None]]


def find_model(named: Path | None) -> Path:
    """The model that is meant: the one that is named; else that of a run here; else the published one, which is said.

    Raises:
      CatdogError: none is named, and there is none.
    """
    if named is not None:
        return named
    if _OWN.exists():
        return _OWN
    published = next(
        (path for root in (Path(), Path(__file__).parents[2]) if (path := root / _PUBLISHED).exists()), None
    )
    if published is None:
        raise CatdogError(
            f"--model: expected {_OWN} or {_PUBLISHED}, found neither. Name a model, or run `catdog run` first."
        )
    console.print(Text(f"No {_OWN} here: using the published {published}"), soft_wrap=True)
    return published


def find_photos(paths: Iterable[Path]) -> list[Path]:
    """Files as they are given, whatever their names; folders replaced by the photos below them; what is left out is told.

    Raises:
      CatdogError: that makes no photo at all.
    """
    paths = list(paths)
    walk = folders.Walk()
    photos = [photo for path in paths for photo in (walk.photos(path) if os.path.isdir(path) else [path])]
    others = folders.told(walk.left_out.values())
    if not photos:
        where = ", ".join(map(str, paths))
        found = f"none ({others})" if others else "none"
        raise CatdogError(f"{where}: expected photos ({', '.join(decoding.SUFFIXES)}), found {found}. Check the path.")
    if others:
        console.print(Text(printable(others)), soft_wrap=True)
    return photos


def predictions(
    predictor: Predictor, photos: Iterable[Path], batch_size: int, overlays: heatmaps.Folder | None = None
) -> Iterator[list[Row]]:
    """Yields what there is to say about `batch_size` photos at a time, in order, each batch as soon as it is computed.

    A photo's dictionary is {"path"} and the keys of `Verdict.row`, with the path of its "heatmap"
    where overlays are written, or {"path", "error"} where it cannot be read.
    """
    decoded = prefetch.map_ahead(_decode, photos, workers=None, ahead=2 * batch_size)
    while batch := list(itertools.islice(decoded, batch_size)):
        pixels = [picture for _, picture in batch if isinstance(picture, np.ndarray)]
        found: Iterator[tuple[np.ndarray, np.ndarray | None]] = iter(())
        if pixels:
            probabilities, cells = (
                predictor.explain(np.stack(pixels)) if overlays else (predictor(np.stack(pixels)), None)
            )
            found = zip(probabilities, itertools.repeat(None) if cells is None else cells, strict=False)
        yield [
            {"path": str(path), "error": str(picture)}
            if isinstance(picture, decoding.ImageError)
            else _row(predictor.rule, path, *next(found), overlays)
            for path, picture in batch
        ]


def _row(
    rule: decision.Rule,
    path: Path,
    probabilities: np.ndarray,
    cells: np.ndarray | None,
    overlays: heatmaps.Folder | None,
) -> Row:
    verdict = rule.decide(probabilities)
    row = {"path": str(path), **verdict.row()}
    if overlays is None or cells is None:
        return row
    try:
        return {**row, "heatmap": str(overlays.write(path, cells, verdict.name == rule.classes[1]))}
    except decoding.ImageError as error:  # it was there a moment ago
        return {"path": str(path), "error": str(error)}


def _decode(path: Path) -> tuple[Path, np.ndarray | decoding.ImageError]:
    try:
        return path, decoding.decode(decoding.read_photo(path))
    except decoding.ImageError as error:
        return path, error
