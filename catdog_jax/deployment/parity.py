"""Does the file say what JAX says? Both are asked about the same photos before the file takes its name."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from catdog_jax.backbone import weights
from catdog_jax.config import THRESHOLD
from catdog_jax.errors import CatdogError
from catdog_jax.features import extractor
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import buckets, sealed
from catdog_jax.heads.head import FittedHead
from catdog_jax.heads.run_directory import RunDirectory
from catdog_jax.photos import sources
from catdog_jax.photos.recipe import DecodingRecipe
from catdog_jax.runtime import side_by_side

TOLERANCE = 1e-4  # on probabilities and strangeness; decisions must be the same, however near to it
_BATCH = 8  # bounds the memory of the check
_ALONE = 2  # photos that are also checked in a batch of one


class Answers(NamedTuple):
    """What JAX says of photos.

    Attributes:
      probabilities: of the second class, float64 [N].
      strangeness: float64 [N]; None of a head that does not tell strangers.
    """

    probabilities: np.ndarray
    strangeness: np.ndarray | None = None


class Parity(NamedTuple):
    """How a file agrees with JAX.

    Attributes:
      photos: how many they were compared on.
      source: of which data set.
      difference: the largest of a probability; the decisions are the same.
      strangeness: the largest of the strangeness; None of a file without it.
    """

    photos: int
    source: str
    difference: float
    strangeness: float | None = None

    def said(self) -> str:
        """The figures in words."""
        return (
            f"agrees with JAX on {self.photos} photos of {self.source}: max |Δprobability| {self.difference:.1e}, "
            "decisions identical"
        )


def photos_at_hand(run: RunDirectory, needed: Sequence[str], undivided: bool = False) -> tuple[sources.Dataset, str]:
    """The photos that the head of a run was trained on, or else the embedded drawings.

    `undivided`: the head was trained on all of them, and no split is drawn.

    Returns:
      The photos, and why they are the drawings, empty where they are not.
    """
    try:
        settings = sealed.read_json(run.settings, "run's settings file")
        source = FeatureCache.open(buckets.found_from(run.path, settings["features"])).source
        return sources.load(source, needed, undivided=undivided), ""
    except (CatdogError, KeyError, TypeError) as error:
        note = f"The photos of the training are not at hand ({error}); comparing on the embedded drawings."
        return sources.load("demo", needed), note


def photos_of(dataset: sources.Dataset, count: int, left_out: dict[str, str], recipe: DecodingRecipe) -> np.ndarray:
    """The photos to compare on, uint8 [N, size, size, 3], those of the test split first.

    `left_out` takes the ids of those that cannot be decoded, with the reason.

    Raises:
      CatdogError: fewer than two can be decoded.
    """
    records = itertools.chain.from_iterable(dataset.split(split) for split in reversed(sources.SPLITS))
    photos = [seen[0] for seen, _ in itertools.islice(side_by_side.readable(records, left_out, [recipe]), count)]
    if len(photos) < 2:
        raise CatdogError(
            f"{dataset.source}: expected at least 2 photos that can be read, found {len(photos)}. Check --data."
        )
    return np.stack(photos)


def expected(loaded: weights.Weights, fitted: FittedHead, photos: np.ndarray, mirror: bool) -> Answers:
    """What JAX says of photos, its features computed in full float32 on whatever device there is."""
    size = fitted.fingerprint.recipe.size
    extract = extractor.Extractor(loaded, pool=fitted.own_pool, precision="float32", batch_size=_BATCH, size=size)
    views = [photos, photos[:, :, ::-1]] if mirror else [photos]
    rows = [extract(view) for view in views]
    strange = [value for row in rows if (value := fitted.strange(row)) is not None]
    probabilities = np.mean([fitted(row) for row in rows], axis=0)
    return Answers(probabilities, np.mean(strange, axis=0) if strange else None)


def check(
    name: str, model: bytes, answers: Answers, photos: np.ndarray, source: str, threshold: float = THRESHOLD
) -> Parity:
    """Compares a file's outputs, in batches and alone, with JAX's answers, of `expected`; both decide by the threshold.

    Raises:
      CatdogError: a difference is not below `TOLERANCE`, or a decision differs.
    """
    batches = [photos[i : i + _BATCH] for i in range(0, len(photos), _BATCH)]
    alone = [photo[None] for photo in photos[:_ALONE]]
    outputs = ["probability", *([] if answers.strangeness is None else ["strangeness"])]
    parts = map(side_by_side.opened_for(model, outputs), batches + alone)
    rows, *strange = (np.concatenate(part) for part in zip(*parts, strict=True))
    probabilities = _and_alone(answers.probabilities)
    difference = float(np.abs(rows - np.stack([1 - probabilities, probabilities], axis=1)).max())
    single = np.float32(threshold)  # as a file's reader compares, so that rounding makes no other decision
    others = int(((rows[:, 1] >= single) != (probabilities >= single)).sum())
    if not difference < TOLERANCE or others:  # written so that NaN fails
        raise CatdogError(
            f"{name}: expected JAX's probabilities within {TOLERANCE:g} and its decisions on {len(photos)} photos of {source}, "
            f"found a difference of {difference:.2g} and {others} other decisions. Nothing was written; please report this."
        )
    if answers.strangeness is None:
        return Parity(len(photos), source, difference)
    apart = float(np.abs(strange[0] - _and_alone(answers.strangeness)).max())
    if not apart < TOLERANCE:
        raise CatdogError(
            f"{name}: expected the strangeness within {TOLERANCE:g} of JAX's on {len(photos)} photos of {source}, found a "
            f"difference of {apart:.2g}. Nothing was written; please report this."
        )
    return Parity(len(photos), source, difference, apart)


def _and_alone(answers: np.ndarray) -> np.ndarray:
    """The answers [N], and once more those of the photos that are also given alone."""
    return np.concatenate([answers, answers[:_ALONE]])
