"""Several models on the same photos, in turns, batch by batch: all of them meet the same moods of the machine."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnxruntime as ort

from catdog_jax.console import progress_bar
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.prefetch import map_ahead
from catdog_jax.photos.recipe import DecodingRecipe
from catdog_jax.photos.sources import Record

BATCH = 8  # photos a turn
_AHEAD = 16  # photos that wait, decoded, for their turn

Model = Callable[[np.ndarray], np.ndarray]  # uint8 [N, size, size, 3] -> probabilities [N, 2]
Seen = tuple[Sequence[np.ndarray], int]  # a photo as each model sees it, uint8 [size, size, 3], and its label, 0 or 1


class Turns(NamedTuple):
    """What several models said of the same photos.

    Attributes:
      labels: int [N], 0 or 1.
      probabilities: of the second class, float64 [N], of each model.
      seconds: that each model took for them all.
    """

    labels: np.ndarray
    probabilities: list[np.ndarray]
    seconds: list[float]


def opened(model: bytes) -> Model:
    """A file of `catdog export` as ONNX Runtime computes it by default."""
    run = opened_for(model, ["probability"])
    return lambda photos: run(photos)[0]


def opened_for(model: bytes, outputs: Sequence[str]) -> Callable[[np.ndarray], list[np.ndarray]]:
    """The same, giving several outputs."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda photos: session.run([*outputs], {"image": photos})


def in_turns(models: Sequence[Model], photos: Iterable[Seen], total: int, task: str) -> Turns:
    """Runs models on photos, in turns.

    The photos, see `readable`, are read as they are needed; `total` and `task` are for the progress
    display.
    """
    remaining = iter(photos)
    labels: list[int] = []
    rows: list[list[np.ndarray]] = [[np.zeros(0)] for _ in models]
    seconds = [0.0] * len(models)
    with progress_bar("photos") as progress:
        shown = progress.add_task(task, total=total)
        while batch := list(itertools.islice(remaining, BATCH)):
            labels += [label for _, label in batch]
            for i, model in enumerate(models):
                pixels = np.stack([seen[i] for seen, _ in batch])
                start = time.perf_counter()
                answer = model(pixels)
                seconds[i] += time.perf_counter() - start
                rows[i].append(answer[:, 1].astype(np.float64))
            progress.advance(shown, len(batch))
    return Turns(np.array(labels, int), [np.concatenate(row) for row in rows], seconds)


def readable(records: Iterable[Record], left_out: dict[str, str], recipes: Sequence[DecodingRecipe]) -> Iterator[Seen]:
    """Photos that can be decoded, by the recipe of each model, with their labels; each is decoded once a recipe.

    The ids of the others go into `left_out`, with the reason.

    Raises:
      CatdogError: the system cannot read a photo, twice.
    """
    different = [*dict.fromkeys(recipes)]

    def decoded(record: Record) -> tuple[Record, dict[DecodingRecipe, np.ndarray], str]:
        try:
            encoded = sources.read_patiently(record)
            return record, {recipe: decoding.decode(encoded, recipe) for recipe in different}, ""
        except decoding.ImageError as error:
            return record, {}, str(error)

    for record, pixels, reason in map_ahead(decoded, records, None, _AHEAD):
        if reason:
            left_out[record.id] = reason
        else:
            yield [pixels[recipe] for recipe in recipes], record.label
