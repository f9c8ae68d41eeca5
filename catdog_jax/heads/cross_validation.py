"""Few photos, each judged by heads that have not seen it: K folds, several times, and a last head that is trained on all.

Linear heads are fitted exactly (`convex`), all folds of all repeats and the head that is kept in one
call. A photo's mirror image is trained on with it and held out with it; a photo is judged by its
first view, as when the head is deployed. What belongs together lies in one fold: photos of one
group, the same bytes under two names, and near copies, which the features tell.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import sklearn.model_selection
from scipy.sparse import csgraph

from catdog_jax.backbone.pooling import Pool
from catdog_jax.backbone.vgg16 import Params
from catdog_jax.config import EXACT_L2
from catdog_jax.errors import UsageError
from catdog_jax.features.cache import FeatureCache
from catdog_jax.heads import convex, rows
from catdog_jax.heads.head import OUTPUT, OutOfFold
from catdog_jax.heads.rows import Chunk, Pair, Scaling

SPLITS = ("train", "validation")  # whose photos are divided into folds
FOLDS = 5  # by default, or as many as the smaller class has photos
# Near copies: the cosine of two photos' features, and of what is left without the mean of their class. Of 15,000 photos
# 26 pairs reach both, true copies among them, and no more than three photos hang together; a picture that is compressed,
# mirrored or cropped reaches them in most cases.
_COSINE, _CENTRED = 0.9, 0.85
_PART = 1024  # photos that are compared with all others at once


class Photos(NamedTuple):
    """What is cross-validated, N photos.

    Attributes:
      ids: their names.
      x: [N, views, columns], of any floating type.
      labels: int64 [N], 0 or 1.
      groups: int64 [N]; photos of one number stay in one fold.
      classes: the names of the two classes.
      pool: the pooling of the features, which decides their scale; empty of other columns.
    """

    ids: list[str]
    x: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    classes: tuple[str, str]
    pool: str = ""


class Result(NamedTuple):
    """What a cross-validation gives.

    Attributes:
      params: the head that was trained on all photos, on features scaled by `scaling`.
      scaling: of the features.
      logits: float64 [N], of heads that had not seen the photo, the mean over the repeats.
      folds: int64 [repeats, N].
      train_loss: the log loss of the head that is kept, on the rows that it was trained on; both
        classes weigh alike in it where they did in the training.
      loss: that of `logits`, likewise.
    """

    params: Params
    scaling: Scaling
    logits: np.ndarray
    folds: np.ndarray
    train_loss: float
    loss: float


def said(photos: int, folds: int, repeats: int) -> str:
    """What was done with so many photos, in words.

    Example:
      >>> said(150, 5, 3).split(";")[0]
      '150 photos, each judged by heads that had not seen it: 5 folds, 3 times'
    """
    times = f", {repeats} times" if repeats > 1 else ""
    return (
        f"{photos:,} photos, each judged by heads that had not seen it: {folds} folds{times}; the head that is kept was "
        "trained on all of them"
    )


# What is divided


def of_cache(cache: FeatureCache, pool: str) -> Photos:
    """The photos of train and validation of a feature cache; those of test stay unseen.

    Raises:
      CatdogError: the cache is damaged, or cannot give this pooling.
    """
    splits = [split for split in SPLITS if cache.rows(split)]
    labels = np.concatenate([cache.labels(split) for split in splits]).astype(np.int64)
    names = [name for split in splits for name in cache.groups(split)]
    hashes = [name for split in splits for name in cache.hashes(split)]
    x = np.concatenate([cache.load(split, pool) for split in splits])
    # Averages tell copies best
    compared = Pool.AVG if cache.pool.gives(Pool.AVG) else cache.pool
    look = x if pool == compared else np.concatenate([cache.load(split, compared) for split in splits])
    groups = grouped(labels, names, hashes, look[:, 0])
    return Photos([name for split in splits for name in cache.ids(split)], x, labels, groups, cache.classes, pool)


def of_arrays(pair: Pair, groups: Sequence[Any] | None, pool: Pool | None, classes: tuple[str, str]) -> Photos:
    """The rows of arrays; near copies are looked for where they are features of this package.

    Raises:
      UsageError: as `rows.checked`, or there is not a group for each row.
    """
    x, y = rows.checked("features", pair)
    names = [None] * len(y) if groups is None else [None if name is None else str(name) for name in groups]
    if len(names) != len(y):
        raise UsageError(f"--groups: expected one for each of {len(y):,} rows, found {len(names):,}.")
    labels = y.astype(np.int64)
    numbers = grouped(labels, names, [None] * len(y), None if pool is None else x)
    return Photos([f"row {row}" for row in range(len(y))], x[:, None], labels, numbers, classes, pool or "")


def grouped(
    labels: np.ndarray, names: Sequence[str | None], hashes: Sequence[str | None], look: np.ndarray | None
) -> np.ndarray:
    """Numbers what belongs together, int64 [N]: the same name, the same hash, or near copies of one class.

    `labels` are [N], 0 or 1; `look` are pooled features [N, columns], or None where copies cannot be told by them.
    """
    pairs = [pair for values in (names, hashes) for pair in _same(values)]
    if look is not None:
        for label in (0, 1):
            place = np.flatnonzero(labels == label)
            pairs += [(int(place[one]), int(place[other])) for one, other in _near(np.asarray(look[place], np.float32))]
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = scipy.sparse.coo_array((np.ones(len(first), bool), (first, second)), shape=(len(labels), len(labels)))
    return csgraph.connected_components(graph, directed=False)[1].astype(np.int64)


def _same(values: Sequence[str | None]) -> Iterator[tuple[int, int]]:
    """Each row and the first one of the same value."""
    first: dict[str, int] = {}
    for row, value in enumerate(values):
        if value is not None and first.setdefault(value, row) != row:
            yield first[value], row


def _near(look: np.ndarray) -> Iterator[tuple[int, int]]:
    """The near copies among photos of one class, by their features [n, columns]."""
    plain, centred = _unit(look), _unit(look - look.mean(axis=0)) if len(look) else look
    for start in range(0, len(look), _PART):
        part = slice(start, start + _PART)
        near = (plain[part] @ plain.T >= _COSINE) & (centred[part] @ centred.T >= _CENTRED)
        for one, other in zip(*np.nonzero(near), strict=True):
            if start + one < other:
                yield start + int(one), int(other)


def _unit(x: np.ndarray) -> np.ndarray:
    """Rows of length 1; rows of zeros stay."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


# Folds


def most_folds(cache: FeatureCache) -> int:
    """How many folds the photos of a cache can have: as many as the smaller class has groups, of one photo or more."""
    photos = of_cache(cache, cache.pool)
    return min(_separate(photos.labels, photos.groups))


def check_folds(labels: np.ndarray, groups: np.ndarray, classes: tuple[str, str], folds: int | None) -> None:
    """Checks that photos can be divided into so many folds, or at all where it is None.

    The labels are [N], 0 or 1; photos of one number in `groups` [N] stay together.

    Raises:
      UsageError: there are fewer than 2 folds, or more than photos or groups of a class.
    """
    separate = _separate(labels, groups)
    smaller = int(np.argmin(separate))
    most, count = separate[smaller], int((labels == smaller).sum())
    hold = f"the {count:,} photo{'s' * (count != 1)} of {classes[smaller]!r}"
    if most < count:
        hold += f", which are {most:,} group{'s' * (most > 1)} of photos that belong together"
    if most < 2:
        raise UsageError(
            f"--folds: expected 2 or more photos of each class that do not belong together, found {hold}. Add other photos of "
            f"{classes[smaller]!r}."
        )
    if folds is not None and not 2 <= folds <= most:
        choose = f"Choose --folds {most}" if most == 2 else "Choose one of these"
        raise UsageError(
            f"--folds: expected 2{f' to {most:,}' * (most > 2)} for {hold}, found {folds}. {choose}, or add photos."
        )


def _separate(labels: np.ndarray, groups: np.ndarray) -> tuple[int, int]:
    """How many groups each class has."""
    first, second = (len(np.unique(groups[labels == label])) for label in (0, 1))
    return first, second


def assign(photos: Photos, folds: int, repeats: int, seed: int) -> np.ndarray:
    """A fold for each photo in each repeat, int64 [repeats, N], by scikit-learn: stratified, and no group is divided.

    Raises:
      UsageError: there are fewer than 2 folds, or more than photos or groups of a class; or those that train
        would lack a class.
    """
    labels, groups = photos.labels, photos.groups
    check_folds(labels, groups, photos.classes, folds)
    result = np.zeros((repeats, len(labels)), np.int64)
    alone = len(np.unique(groups)) == len(groups)
    for repeat in range(repeats):
        settings = {"n_splits": folds, "shuffle": True, "random_state": (seed + repeat) % 2**32}
        divided = (
            sklearn.model_selection.StratifiedKFold(**settings).split(labels, labels)
            if alone
            else sklearn.model_selection.StratifiedGroupKFold(**settings).split(labels, labels, groups)
        )
        for fold, (_, held_out) in enumerate(divided):
            result[repeat, held_out] = fold
    for repeat, of_repeat in enumerate(result, 1):
        for fold in range(folds):
            if lacking := {0, 1} - {*labels[of_repeat != fold].tolist()}:
                name = photos.classes[lacking.pop()]
                raise UsageError(
                    f"--folds: expected photos of both classes outside of each fold, found all of {name!r} in fold {fold + 1} "
                    f"of repeat {repeat}: its groups are too large. Choose fewer folds, or divide the groups."
                )
    return result


# Fits


def fit(photos: Photos, l2: float | None, balanced: bool, folds: int, repeats: int, seed: int) -> Result:
    """Fits all heads: one for each fold of each repeat, and the one that is kept, on all photos.

    Args:
      photos: the photos.
      l2: the penalty of all heads; by default that of so many rows.
      balanced: whether both classes weigh alike.
      folds: how many.
      repeats: how often they are divided anew.
      seed: decides the folds.

    Raises:
      UsageError: as `assign`; or there are too many rows of too many columns.
    """
    fold = assign(photos, folds, repeats, seed)
    count, views, columns = photos.x.shape
    if not convex.fits(count * views, columns):
        raise UsageError(
            f"--folds: expected at most {convex.MAX_SIDE:,} rows or {convex.MAX_SIDE:,} columns, found {count * views:,} rows "
            f"of {columns:,}. Choose --pool avg, or leave --folds out: so many photos can spare some for validation."
        )
    x = photos.x.reshape(count * views, columns)
    labels = np.repeat(photos.labels, views)
    scaling = rows.common_scaling([lambda: Chunk(x, labels)], photos.pool)
    x = (np.asarray(x, np.float64) - scaling.mean) / scaling.deviation
    trains = np.stack(
        [*(fold[repeat] != one for repeat in range(repeats) for one in range(folds)), np.ones(count, bool)]
    )
    weights = np.repeat(trains, views, axis=1).astype(np.float64)
    penalties = np.full(len(weights), l2) if l2 is not None else EXACT_L2 / weights.sum(axis=1)
    if balanced:
        for label in (0, 1):
            of_class = labels == label
            weights[:, of_class] /= weights[:, of_class].sum(axis=1, keepdims=True)
    fitted = convex.fit(x, labels, weights, penalties)[OUTPUT]
    logits = fitted["kernel"][:, :, 0] @ x.T + fitted["bias"]
    of_photos = logits[:-1, ::views].reshape(repeats, folds, count)
    unseen = np.take_along_axis(of_photos, fold[:, None], axis=1)[:, 0].mean(axis=0)
    kept = {OUTPUT: {part: array[-1].astype(np.float32) for part, array in fitted.items()}}
    return Result(
        kept, scaling, unseen, fold, _loss(logits[-1], labels, balanced), _loss(unseen, photos.labels, balanced)
    )


def _loss(logits: np.ndarray, labels: np.ndarray, balanced: bool) -> float:
    """The mean log loss of logits [N] of the second class."""
    losses = np.logaddexp(0, np.where(labels == 1, -logits, logits))
    return float(np.mean([losses[labels == label].mean() for label in (0, 1)]) if balanced else losses.mean())


def out_of_fold(photos: Photos, result: Result, temperature: float) -> OutOfFold:
    """What is kept of a cross-validation beside the head, with the probabilities of calibrated logits."""
    probabilities = 0.5 * (1 + np.tanh(result.logits / temperature / 2))
    return OutOfFold(photos.ids, photos.labels, result.folds, probabilities)
