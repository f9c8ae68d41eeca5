"""Several models on the same photos, in turns, batch by batch: all of them meet the same moods of the machine."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnxruntime as ort

from catdog_jax.console import progress_bar
from catdog_jax.photos.prefetch import decoded
from catdog_jax.photos.sources import Record

BATCH = 8  # photos a turn
_AHEAD = 16  # photos that wait, decoded, for their turn

Model = Callable[[np.ndarray], np.ndarray]  # uint8 [N, 224, 224, 3] -> probabilities [N, 2]


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


def in_turns(models: Sequence[Model], photos: Iterable[tuple[np.ndarray, int]], total: int, task: str) -> Turns:
    """Runs models on photos, in turns.

    A photo is uint8 [224, 224, 3] with its label, 0 or 1, and read as it is needed; `total` and
    `task` are for the progress display.
    """
    remaining = iter(photos)
    labels: list[int] = []
    rows: list[list[np.ndarray]] = [[np.zeros(0)] for _ in models]
    seconds = [0.0] * len(models)
    with progress_bar("photos") as progress:
        shown = progress.add_task(task, total=total)
        while batch := list(itertools.islice(remaining, BATCH)):
            pixels = np.stack([photo for photo, _ in batch])
            labels += [label for _, label in batch]
            for i, model in enumerate(models):
                start = time.perf_counter()
                answer = model(pixels)
                seconds[i] += time.perf_counter() - start
                rows[i].append(answer[:, 1].astype(np.float64))
            progress.advance(shown, len(batch))
    return Turns(np.array(labels, int), [np.concatenate(row) for row in rows], seconds)


def readable(records: Iterable[Record], left_out: dict[str, str]) -> Iterator[tuple[np.ndarray, int]]:
    """Pixels and label of the photos that can be decoded; the ids of the others go into `left_out`, with the reason."""
    for photo in decoded(records, None, _AHEAD):
        if photo.pixels is None:
            left_out[photo.record.id] = photo.reason
        else:
            yield photo.pixels, photo.record.label
