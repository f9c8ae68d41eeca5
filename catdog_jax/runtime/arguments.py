"""What `catdog predict` says of each photo, as a row of output, and the model that settings mean, on its device."""

import itertools
from collections.abc import Iterable, Iterator

from catdog_jax.config import PhotoSettings
from catdog_jax.console import say
from catdog_jax.photos import decoding
from catdog_jax.runtime.default_model import find_model
from catdog_jax.runtime.heatmaps import Folder
from catdog_jax.runtime.inputs import Given, named
from catdog_jax.runtime.output import Row
from catdog_jax.runtime.prediction import Prediction
from catdog_jax.runtime.predictor import Predictor
from catdog_jax.runtime.sorting import Sorter


def opened(settings: PhotoSettings) -> Predictor:
    """The model that settings mean, on their device; where not all of it runs there, a remark says so.

    Raises:
      CatdogError: there is none, or it cannot be used; see `Predictor`.
    """
    chosen, device = find_model(settings.model), settings.device
    predictor = Predictor(chosen, batch_size=settings.batch_size, threads=settings.threads, device=device)
    if predictor.placement.said() != predictor.device:
        say(f"{chosen}: on {predictor.placement.said()}")
    return predictor


def predictions(
    predictor: Predictor,
    photos: Iterable[Given],
    batch_size: int,
    overlays: Folder | None = None,
    sorter: Sorter | None = None,
) -> Iterator[list[Row]]:
    """Yields what there is to say about `batch_size` photos at a time, in order, each batch as soon as it is computed.

    A photo's dictionary is {"path"} and the keys of `Verdict.row`, with the path of its "heatmap"
    where overlays are written and of its copy, "sorted", where photos are sorted; or {"path",
    "error"} where it cannot be read.
    """
    answers = predictor.stream(photos, heatmaps=overlays is not None)
    while batch := list(itertools.islice(answers, batch_size)):
        yield [_row(photo, answer, predictor.classes[1], overlays, sorter) for photo, answer in batch]


def _row(
    photo: Given, answer: Prediction | decoding.ImageError, second: str, overlays: Folder | None, sorter: Sorter | None
) -> Row:
    path = named(photo)
    if isinstance(answer, decoding.ImageError):
        return {"path": path, "error": str(answer)}
    row = {"path": path, **answer.verdict.row()}
    try:
        if overlays is not None and answer.heatmap is not None:
            row["heatmap"] = str(overlays.write(photo, answer.heatmap, answer.label == second))
        if sorter is not None:
            row["sorted"] = str(sorter.put(photo, answer.verdict))
    except decoding.ImageError as error:  # it was there a moment ago
        return {"path": path, "error": str(error)}
    return row
