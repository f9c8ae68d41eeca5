"""Photos through an exported model, and what is printed of them: `catdog predict`."""

import collections
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from rich.text import Text

from catdog_jax.config import PredictConfig
from catdog_jax.console import console, printable, progress_bar, write
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.photos import decoding, folders, prefetch
from catdog_jax.runtime import decision, heatmaps
from catdog_jax.runtime.output import Row, rendered
from catdog_jax.runtime.predictor import Predictor

_OWN, _PUBLISHED = Path("run/model.onnx"), Path("artifacts/default/model-int8.onnx")


# Photos by class and sure, both None where they cannot be read
Counts = collections.Counter[tuple[str | None, bool | None]]


def predict(config: PredictConfig) -> int:
    """Classifies photos and prints the results on stdout as a table, as JSON lines or as CSV.

    Args:
      config: the photos, the model and the format.

    Returns:
      The exit status: 0, or 1 if a photo could not be read (it is listed with the reason).

    Raises:
      BrokenPipeError: the reader of stdout went away.
      CatdogError: there are no photos, or the model cannot be used; see `Predictor`.
      UsageError: a setting is out of range.
    """
    _check_settings(config)
    photos = find_photos(config.paths)
    predictor = Predictor(find_model(config.model), batch_size=config.batch_size, threads=config.threads)
    if config.heatmap is not None and not predictor.explains:
        raise UsageError("--heatmap: expected a model with the output 'heatmap', found none. Export it again.")
    overlays = None if config.heatmap is None else heatmaps.Folder(config.heatmap)
    counts: Counts = collections.Counter()
    batches = _counted(predictions(predictor, photos, config.batch_size, overlays), counts)
    if config.format == "table":  # which is printed at the end, and should not be waited for in the dark
        batches = _with_progress(batches, len(photos))
    for text in rendered(config.format, predictor.classes, batches):
        write(text)
    where = "" if config.heatmap is None else f"; heat maps in {config.heatmap}"
    unknown = "" if predictor.rule.abstain_below is not None else f". {decision.UNKNOWN}"
    console.print(Text(f"{len(photos):,} photos: {_in_words(predictor.rule, counts)}{where}{unknown}"), soft_wrap=True)
    return 1 if counts[None, None] else 0


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


def _check_settings(config: PredictConfig) -> None:
    if not config.paths:
        raise UsageError("paths: expected photos or folders, found none. Name some; see `catdog predict --help`.")
    for name, value in (("batch_size", config.batch_size), ("threads", config.threads)):
        if value is not None and value < 1:
            raise UsageError(f"{name}: expected 1 or more, found {value}. Leave it out for the default.")


def _counted(batches: Iterable[list[Row]], counts: Counts) -> Iterator[list[Row]]:
    for batch in batches:
        counts.update((row.get("class"), row.get("sure")) for row in batch)
        yield batch


def _in_words(rule: decision.Rule, counts: Counts) -> str:
    judged = [f"{counts[name, True] + counts[name, None]:,} {printable(name)}" for name in rule.classes]
    unsure = sum(counts[name, False] for name in rule.classes)
    return ", ".join(
        [*judged, *([] if rule.abstain_below is None else [f"{unsure:,} unsure"]), f"{counts[None, None]:,} unreadable"]
    )


def _with_progress(batches: Iterable[list[Row]], photos: int) -> Iterator[list[Row]]:
    with progress_bar("photos") as progress:
        task = progress.add_task("predict", total=photos)
        for batch in batches:
            yield batch
            progress.advance(task, len(batch))
