"""Labelled features as a training takes them: in chunks, from a feature cache or from arrays in memory."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from catdog_jax.backbone.pooling import Pool
from catdog_jax.errors import UsageError
from catdog_jax.features.cache import FeatureCache
from catdog_jax.heads import convex
from catdog_jax.photos.dataset import is_class_name
from catdog_jax.photos.fingerprint import Fingerprint

_HELD_OUT = 0.1  # of the rows of each class, where no validation rows are given
_PART = 4096  # rows of a chunk of arrays that are too large to be resident


class Chunk(NamedTuple):
    """Rows of features: x [rows, columns] as stored, y float32 [rows], 0 or 1."""

    x: Any
    y: Any


Loaders = Sequence[Callable[[], Chunk]]


class Scaling(NamedTuple):
    """What makes features standard: (x - mean) / deviation, each float32 [1, columns], or [1, 1] for all alike."""

    mean: Any
    deviation: Any


UNSCALED = Scaling(np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))


@dataclass(frozen=True)
class Rows:
    """What a head is trained on.

    Attributes:
      load: the loaders of a split, "train" or "validation", with the features of a pooling.
      gives: whether features of this pooling can be had.
      stored: the pooling of what is stored; None of columns that are no features of this package.
      classes: the names of the two classes.
      fingerprint: of the features; empty where they are not of this package.
      name: what they are called in messages.
      photos: how many are trained on.
      views: rows a photo in training.
      exact: whether the training rows, with the features of a pooling, can be fitted by `convex`:
        they are in memory, and not too many of too many columns.
    """

    load: Callable[[str, str], Loaders]
    gives: Callable[[Pool], bool]
    stored: Pool | None
    classes: tuple[str, str]
    fingerprint: Fingerprint
    name: str
    photos: int
    views: int
    exact: Callable[[str], bool]


def of_cache(cache: FeatureCache, resident_gib: float) -> Rows:
    """The rows of a feature cache.

    For training the views of a photo are rows of their own; in validation a photo has its first
    view, as when it is deployed. A split of up to `resident_gib` is one chunk that stays on the
    device; a larger one is a chunk a shard.
    """
    return Rows(
        functools.partial(_load, cache, resident_gib),
        cache.pool.gives,
        cache.pool,
        cache.classes,
        cache.fingerprint,
        str(cache.path),
        cache.rows("train"),
        len(cache.views),
        lambda pool: (
            _resident(cache, resident_gib, "train", pool)
            and convex.fits(cache.rows("train") * len(cache.views), _columns(cache, pool))
        ),
    )


def _resident(cache: FeatureCache, resident_gib: float, split: str, pool: str) -> bool:
    """Whether the rows of a split stay on the device."""
    views = len(cache.views) if split == "train" else 1
    stored_type = cache.fingerprint.dtype if cache.pool == pool else np.float32  # pooling computes it
    size = cache.rows(split) * views * _columns(cache, pool) * np.dtype(stored_type).itemsize
    return size <= resident_gib * 2**30


def _columns(cache: FeatureCache, pool: str) -> int:
    return Pool(pool).columns(cache.fingerprint.recipe.grid)


def _load(cache: FeatureCache, resident_gib: float, split: str, pool: str) -> Loaders:
    views = len(cache.views) if split == "train" else 1
    names = cache.shard_names(split)

    def load(name: str) -> Chunk:
        x = np.asarray(cache.load_shard(name, pool))[:, :views]
        return Chunk(x.reshape(-1, x.shape[-1]), np.repeat(cache.shard_labels(name), views).astype(np.float32))

    if not _resident(cache, resident_gib, split, pool):
        return [functools.partial(load, name) for name in names]
    whole = Chunk(*(jnp.asarray(np.concatenate(parts)) for parts in zip(*map(load, names), strict=True)))
    return [lambda: whole]


Pair = tuple[Any, Any]  # x [N, columns] and labels [N]


def of_arrays(
    features: Pair,
    validation: Pair | None = None,
    *,
    pool: Pool | None = None,
    classes: Sequence[str] | None = None,
    fingerprint: Fingerprint | None = None,
    seed: int = 0,
    resident_gib: float = 4.0,
) -> Rows:
    """The rows of arrays, see `training.train`.

    Raises:
      TypeError: `features` or `validation` is no pair.
      UsageError: an array has another shape or other values, or a class has too few rows.
    """
    x, y = checked("features", features)
    held = _held_out(y, seed) if validation is None else np.zeros(len(y), bool)
    parts = {"train": Chunk(x[~held], y[~held])}
    parts["validation"] = Chunk(x[held], y[held]) if validation is None else checked("validation", validation)
    columns = x.shape[1]
    if parts["validation"].x.shape[1] != columns:
        raise UsageError(f"validation: expected x [N, {columns}], found {list(parts['validation'].x.shape)}.")
    fingerprint = fingerprint or Fingerprint()
    if pool is not None and (has := pool.columns(fingerprint.recipe.grid)) != columns:
        raise UsageError(f"--pool: expected one of {columns} columns, found {pool}, which has {has:,}.")
    names = tuple(classes or fingerprint.classes or ("0", "1"))
    if len(names) != 2 or names[0] == names[1] or not all(map(is_class_name, names)):
        raise UsageError(f"--classes: expected the names of two classes, found {names}.")

    def resident(split: str) -> bool:
        return parts[split].x.nbytes <= resident_gib * 2**30

    def load(split: str, _: str) -> Loaders:
        part = parts[split]
        if resident(split):
            whole = Chunk(*map(jnp.asarray, part))
            return [lambda: whole]
        return [
            functools.partial(Chunk, part.x[start : start + _PART], part.y[start : start + _PART])
            for start in range(0, len(part.y), _PART)
        ]

    count = len(parts["train"].y)
    return Rows(
        load,
        lambda wanted: wanted == pool,
        pool,
        (names[0], names[1]),
        fingerprint,
        "features",
        photos=count,
        views=1,
        exact=lambda _: resident("train") and convex.fits(count, columns),
    )


def checked(name: str, pair: Pair) -> Chunk:
    """The arrays of a pair as they are computed with: x of a floating type, y float32 of 0 and 1.

    Raises:
      TypeError: it is no pair.
      UsageError: an array has another shape or other values, or a class has no row.
    """
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(
            f"{name}: expected a FeatureCache, its path, or a pair (x, labels), found {type(pair).__name__}."
        )
    x, y = (np.asarray(array) for array in pair)
    if x.ndim != 2 or not x.size or x.dtype.kind not in "fiub":
        raise UsageError(f"{name}: expected x of numbers, [N, columns], found {x.dtype} {list(x.shape)}.")
    if y.shape != x.shape[:1] or y.dtype.kind not in "fiub":
        raise UsageError(f"{name}: expected a label of 0 or 1 a row, [{len(x)}], found {y.dtype} {list(y.shape)}.")
    if others := sorted(set(np.unique(y).tolist()) - {0, 1}):
        raise UsageError(f"{name}: expected labels of 0 or 1, found {', '.join(map(str, others[:3]))}.")
    if lacking := {0, 1} - set(y.tolist()):
        raise UsageError(f"{name}: expected rows of both classes, found none with the label {lacking.pop()}.")
    if len(odd := np.flatnonzero(~np.isfinite(x).all(axis=1))):
        raise UsageError(
            f"{name}: expected finite numbers, found others in {len(odd):,} rows, the first of them {odd[0]}."
        )
    return Chunk(x if x.dtype in (np.float16, np.float32) else x.astype(np.float32), y.astype(np.float32))


def _held_out(y: np.ndarray, seed: int) -> np.ndarray:
    """Which rows are held out, bool [N]: a tenth of each class, and at least one row of it."""
    rng = np.random.default_rng(seed)
    held = np.zeros(len(y), bool)
    for label in (0, 1):
        rows = rng.permutation(np.flatnonzero(y == label))
        if len(rows) < 2:
            raise UsageError(
                f"features: expected 2 or more rows of each class, found {len(rows)} with the label {label}."
            )
        held[rows[: max(1, round(_HELD_OUT * len(rows)))]] = True
    return held


def measure(training: Loaders) -> Scaling:
    """The mean and the standard deviation of each column over the training rows, in float64; constant columns get 1."""
    rows, total, squares = 0, 0.0, 0.0
    for x in _parts(training):
        rows, total, squares = rows + len(x), total + x.sum(axis=0), squares + (x**2).sum(axis=0)
    mean = np.asarray(total / rows)
    deviation = np.sqrt(np.maximum(squares / rows - mean**2, 0))
    deviation[deviation < 1e-6] = 1
    return Scaling(mean[None].astype(np.float32), deviation[None].astype(np.float32))


def common_scaling(training: Loaders, pool: str) -> Scaling:
    """What a head that is fitted exactly sees: columns centred, and all divided by one number.

    Rows then have length 1 on average (the root of the mean square), so that the penalty means the
    same for features of any unit and any number of columns. Columns keep their ratios, in which
    VGG16 tells them apart: a scale for each column costs accuracy where rows are few. The halves of
    the pooling avg+max have a number each, that both count alike: maxima are some 7 times averages.

    In float64; columns that are all constant are divided by 1.
    """
    scaling = measure(training)
    mean, count, squares = scaling.mean.astype(np.float64), 0, np.zeros(scaling.mean.shape[1])
    for x in _parts(training):
        count, squares = count + len(x), squares + ((x - mean) ** 2).sum(axis=0)
    parts = max(1, len(Pool(pool).parts))
    lengths = np.sqrt(parts * squares.reshape(parts, -1).sum(axis=1) / count)
    lengths[lengths < 1e-6] = 1
    deviation = np.repeat(lengths, squares.size // parts)
    return Scaling(scaling.mean, deviation[None].astype(np.float32))


def class_weights(training: Loaders) -> np.ndarray:
    """What a row of each class weighs where both classes weigh alike: rows / (2 rows of the class), float32 [2].

    The mean weight of all rows is 1. Each class has a row.
    """
    labels = np.concatenate([np.asarray(load().y) for load in training])
    counts = np.bincount(labels.astype(np.int64), minlength=2)
    return (counts.sum() / (2 * counts)).astype(np.float32)


def _parts(training: Loaders) -> Iterator[np.ndarray]:
    """All features in float64, a bounded part at a time."""
    for load in training:
        x = np.asarray(load().x)
        for start in range(0, len(x), 1024):
            yield x[start : start + 1024].astype(np.float64)


def standardise(x: jax.Array, scaling: Scaling) -> jax.Array:
    """Features of any floating type, [rows, columns], made standard, float32."""
    return (x.astype(jnp.float32) - scaling.mean) / scaling.deviation
