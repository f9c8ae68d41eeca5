"""What the arguments of `catdog predict` mean: which model, which photos, and a row of output for each."""

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from catdog_jax.console import say
from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding, folders
from catdog_jax.runtime.heatmaps import Folder
from catdog_jax.runtime.output import Row
from catdog_jax.runtime.prediction import Prediction
from catdog_jax.runtime.predictor import Predictor

_OWN, _PUBLISHED = Path("run/model.onnx"), Path("artifacts/default/model-int8.onnx")


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
    say(f"No {_OWN} here: using the published {published}")
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
        say(others)
    return photos


def predictions(
    predictor: Predictor, photos: Iterable[Path], batch_size: int, overlays: Folder | None = None
) -> Iterator[list[Row]]:
    """Yields what there is to say about `batch_size` photos at a time, in order, each batch as soon as it is computed.

    A photo's dictionary is {"path"} and the keys of `Verdict.row`, with the path of its "heatmap"
    where overlays are written, or {"path", "error"} where it cannot be read.
    """
    answers = predictor.stream(photos, heatmaps=overlays is not None)
    while batch := list(itertools.islice(answers, batch_size)):
        yield [_row(path, answer, predictor.classes[1], overlays) for path, answer in batch]


def _row(path: Path, answer: Prediction | decoding.ImageError, second: str, overlays: Folder | None) -> Row:
    if isinstance(answer, decoding.ImageError):
        return {"path": str(path), "error": str(answer)}
    row = {"path": str(path), **answer.verdict.row()}
    if overlays is None or answer.heatmap is None:
        return row
    try:
        return {**row, "heatmap": str(overlays.write(path, answer.heatmap, answer.label == second))}
    except decoding.ImageError as error:  # it was there a moment ago
        return {"path": str(path), "error": str(error)}
