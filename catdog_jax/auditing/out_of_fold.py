"""Heads that have not seen what they predict: linear ones, cross-validated, for the checks that look at features.

One head a fold and a penalty, all fitted at once under vmap on averaged VGG16 features. Copies of
one picture lie in one fold, so that no head predicts a photo whose copy it has seen.

`heads.convex` fits such heads exactly, and `heads.cross_validation` trains by it. Here there may be
tens of thousands of photos, on which Newton's method in float64 takes four times as long as L-BFGS
(39 s against 10 s for 2,000 photos, 76 s against 17 s for 4,000), to no end: the checks ask which
photos a head contradicts, not for the last digits.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax

from catdog_jax.auditing.evidence import Copies
from catdog_jax.heads import head, rows, steps
from catdog_jax.heads.rows import Scaling
from catdog_jax.heads.steps import Hyper

FOLDS = 5
_PENALTIES = (1e-3, 1e-2, 1e-1)  # the one with the lowest log loss out of fold is taken
_STEPS = 40  # of L-BFGS
_SEARCH = 4  # tries of a step's length; all heads wait for the one that needs most


class OutOfFold(NamedTuple):
    """The probability of class 1 that a head gives each row it was not fitted on, float64 [N], and the heads' penalty."""

    probabilities: np.ndarray
    l2: float


def predict(features: Mapping[int, np.ndarray], labels: np.ndarray, copies: Sequence[Copies], seed: int) -> np.ndarray:
    """The probability of class 1 of each photo, by a head that has seen neither it nor a copy of it.

    The features, [columns] of each photo, are by its place in the data set, and the labels, 0
    or 1, in their order; copies stay in one fold. The seed decides the folds.
    """
    place = {row: index for index, row in enumerate(features)}
    together = [[place[row] for row in sorted(group.rows) if row in place] for group in copies]
    fold = folds(len(features), [group for group in together if group], seed)
    return out_of_fold(np.stack(list(features.values())), labels, fold).probabilities


def folds(count: int, groups: Sequence[Sequence[int]], seed: int) -> np.ndarray:
    """A fold for each row, int [count]: at random and of equal size, but for groups, which stay together."""
    result = np.random.default_rng(seed).permutation(count) % FOLDS
    for group in groups:
        result[list(group)] = result[group[0]]
    return result


def out_of_fold(x: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> OutOfFold:
    """Predicts each row by a linear head that was fitted on the other folds.

    `x` is [N, columns] of any floating type, the labels [N] are 0 or 1, `fold` is of `folds`.
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
