"""What cross-validated heads say of a data set: labels that are probably wrong, and splits that can be told apart.

Linear heads, one a fold and a penalty, are fitted all at once under vmap on averaged VGG16
features; each photo is judged by those that have not seen it. Copies of one picture lie in one
fold, so that none is judged by a head that has seen its copy.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax

from catdog_jax.auditing.duplicates import Group
from catdog_jax.auditing.file_faults import Look
from catdog_jax.features.cache import FeatureCache
from catdog_jax.heads import head, rows, steps
from catdog_jax.heads.rows import Scaling
from catdog_jax.heads.steps import Hyper
from catdog_jax.photos.sources import SPLITS, Dataset
from catdog_jax.reporting import intervals
from catdog_jax.reporting.metrics import metrics

FOLDS = 5
MIN_PHOTOS = 20  # of each side; below it a fold holds too few to be judged by
_PENALTIES = (1e-3, 1e-2, 1e-1)  # the one with the lowest log loss out of fold is taken
_STEPS = 40  # of L-BFGS
_SEARCH = 4  # tries of a step's length; all heads wait for the one that needs most


class OutOfFold(NamedTuple):
    """The probability of class 1 that a head gives each row it was not fitted on, float64 [N], and the heads' penalty."""

    probabilities: np.ndarray
    l2: float


class Labels(NamedTuple):
    """What confident learning finds: for each row, and over all.

    Attributes:
      other: float64 [N], the probability of the class that a row is not labelled with.
      suspect: bool [N], whether the row is counted as one of the other class.
      thresholds: for each class, the mean probability that its own rows give it.
    """

    other: np.ndarray
    suspect: np.ndarray
    thresholds: tuple[float, float]


class Drift(NamedTuple):
    """How well a head tells the photos of a split from training photos: its ROC AUC with a 95 % interval; 0.5 is not at all."""

    split: str
    auc: float
    low: float
    high: float


def features_of(cache: FeatureCache, looks: Sequence[Look]) -> dict[int, np.ndarray]:
    """Averaged features, float [512], by the place of a photo, found by its bytes: renaming and moving lose none.

    Raises:
      CatdogError: the cache is damaged, or cannot give averaged features.
    """
    places: dict[str, list[int]] = {}
    for place, one in enumerate(looks):
        if one.grey is not None:
            places.setdefault(one.sha256, []).append(place)
    found = {}
    for name in (name for split in SPLITS for name in cache.shard_names(split)):
        rows = np.asarray(cache.load_shard(name, "avg")[:, 0])
        for digest, row in zip(cache.sidecar(name)["source_sha256"], rows, strict=True):
            found.update(dict.fromkeys(places.get(digest, ()), row))
    return found


def folds(count: int, groups: Sequence[Sequence[int]], seed: int) -> np.ndarray:
    """A fold for each row, int [count]: at random and of equal size, but for groups, which stay together."""
    result = np.random.default_rng(seed).permutation(count) % FOLDS
    for group in groups:
        result[list(group)] = result[group[0]]
    return result


def out_of_fold(x: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> OutOfFold:
    """Judges each row by a linear head that was fitted on the other folds.

    Args:
      x: [N, columns] of any floating type.
      labels: [N], 0 or 1.
      fold: [N], of `folds`.
    """
    scaling = rows.measure([lambda: rows.Chunk(x, labels)])
    outside = (fold[None] != np.arange(FOLDS)[:, None]).astype(np.float32)
    penalties = np.repeat(np.array(_PENALTIES, np.float32), FOLDS)
    weights = np.tile(outside, (len(_PENALTIES), 1))
    logits = np.asarray(_fit_all(x, labels.astype(np.float32), weights, penalties, scaling), np.float64)
    by_penalty = logits.reshape(len(_PENALTIES), FOLDS, -1)[:, fold, np.arange(len(fold))]
    losses = np.logaddexp(0, np.where(labels == 1, -by_penalty, by_penalty)).mean(axis=1)
    best = int(np.argmin(losses))
    return OutOfFold(0.5 * (1 + np.tanh(by_penalty[best] / 2)), _PENALTIES[best])


@jax.jit
def _fit_all(x: jax.Array, y: jax.Array, weights: jax.Array, penalties: jax.Array, scaling: Scaling) -> jax.Array:
    """The logits of heads, [heads, N], each fitted on the rows of its weights, [heads, N], with the objective of training."""
    x = rows.standardise(x, scaling)
    start = head.Head().init(jax.random.key(0), x[:1])["params"]
    search = optax.scale_by_zoom_linesearch(_SEARCH, initial_guess_strategy="one")
    optimiser = optax.lbfgs(linesearch=search)

    def fit(weight: jax.Array, l2: jax.Array) -> jax.Array:
        hyper = Hyper(0.0, 1.0, l2, 0.0, None)

        def value(params: steps.Params) -> jax.Array:
            return steps.objective(params, x, y, weight, jax.random.key(0), hyper)[0]

        def step(
            state: tuple[steps.Params, optax.OptState], _: None
        ) -> tuple[tuple[steps.Params, optax.OptState], None]:
            params, memory = state
            loss, gradient = optax.value_and_grad_from_state(value)(params, state=memory)
            updates, memory = optimiser.update(gradient, memory, params, value=loss, grad=gradient, value_fn=value)
            return (optax.apply_updates(params, updates), memory), None

        (params, _), _ = jax.lax.scan(step, (start, optimiser.init(start)), None, _STEPS)
        return head.logits(params, x)

    return jax.vmap(fit)(weights, penalties)


def confident_learning(labels: np.ndarray, probabilities: np.ndarray) -> Labels:
    """Which labels are probably wrong.

    Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR
    70, 2021, for two classes: a row counts as one of class j when its probability of j is at least
    the mean probability of j among the rows labelled j (equation 2; of two such classes the
    likelier); it is suspect when j is not its label (the off-diagonal of the confident joint).
    Ranked by the probability of the other class, the normalised margin.

    Args:
      labels: [N], 0 or 1, both of which occur.
      probabilities: [N], of class 1, by heads that have not seen the row.
    """
    of_class = np.stack([1 - probabilities, probabilities])
    given = labels.astype(np.int64)
    thresholds = [float(of_class[one][given == one].mean()) for one in (0, 1)]
    rows = np.arange(len(given))
    own, other = of_class[given, rows], of_class[1 - given, rows]
    limits = np.array(thresholds)
    suspect = (other >= limits[1 - given]) & ((own < limits[given]) | (other > own))
    return Labels(other, suspect, (thresholds[0], thresholds[1]))


def judge_labels(
    dataset: Dataset, features: Mapping[int, np.ndarray], groups: Sequence[Group], seed: int
) -> tuple[Labels, OutOfFold] | None:
    """Judges the labels of all photos that have features, in the order of `features`; None where there are too few."""
    rows = list(features)
    labels = np.array([dataset.records[row].label for row in rows])
    if min(np.bincount(labels, minlength=2)) < MIN_PHOTOS:
        return None
    judged = out_of_fold(np.stack(list(features.values())), labels, _folds(rows, groups, seed))
    return confident_learning(labels, judged.probabilities), judged


def drifts(dataset: Dataset, features: Mapping[int, np.ndarray], groups: Sequence[Group], seed: int) -> list[Drift]:
    """Whether heads tell validation and test photos from training photos; a split with too few photos is left out."""
    found = []
    for split in SPLITS[1:]:
        rows = [row for row in features if dataset.records[row].split in (SPLITS[0], split)]
        is_other = np.array([dataset.records[row].split == split for row in rows], np.int64)
        if min(np.bincount(is_other, minlength=2)) < MIN_PHOTOS:
            continue
        judged = out_of_fold(
            np.stack([features[row] for row in rows]), is_other, _folds(rows, groups, seed)
        ).probabilities
        found.append(Drift(split, metrics(is_other, judged)["roc_auc"], *intervals.of_roc_auc(is_other, judged)))
    return found


def _folds(rows: Sequence[int], groups: Sequence[Group], seed: int) -> np.ndarray:
    place = {row: index for index, row in enumerate(rows)}
    together = [[place[row] for row in group.rows if row in place] for group in groups]
    return folds(len(rows), [one for one in together if one], seed)
