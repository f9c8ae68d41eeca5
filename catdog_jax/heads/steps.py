"""One pass over a chunk of features: optax Adam, exponentially decaying, with an L2 penalty in the loss.

A pass is a jitted `lax.scan`. The penalty is Keras' kernel_regularizer, l2 * sum(kernel ** 2) added
to the loss, so Adam rescales its gradient like any other; it is not AdamW's decoupled weight decay.

Many heads of one shape are computed at once under vmap: they see the same batches and the same
random bits of the dropout, so a batch is gathered once for all of them, and they differ by their
hyperparameters alone, and by what they have of a shape that is `merging`'s.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from catdog_jax.backbone.vgg16 import Params
from catdog_jax.config import THRESHOLD, Recipe
from catdog_jax.heads import head
from catdog_jax.heads.rows import Chunk, Scaling, standardise


class Hyper(NamedTuple):
    """The numbers of a recipe that may differ between heads that are fitted at once: scalars, or [heads].

    `dropout` is None where no head drops anything, so that no random bits are drawn.
    """

    learning_rate: Any
    decay_rate: Any
    l2: Any
    label_smoothing: Any
    dropout: Any


class Shape(NamedTuple):
    """What such heads share: the widths of the hidden layers, rows a step, and steps until the rate has decayed once.

    `drawn` is that of `head.Head`, where heads of several shapes share one.
    """

    hidden: tuple[int, ...]
    batch_size: int
    decay_steps: int
    drawn: tuple[tuple[int, int], ...] = ()


class Cut(NamedTuple):
    """What each head has of a shape that it shares with others (see `merging`), with a leading axis of heads.

    Attributes:
      columns: float32 [columns], 1 for the features that it sees and 0 for the others.
      kind: int32 scalar, which of `Shape.drawn` it is.
    """

    columns: Any
    kind: Any


class State(NamedTuple):
    """What a step of the optimisation changes; with a leading axis of heads."""

    params: Params
    moments: Any


def hypers(recipes: Sequence[Recipe]) -> Hyper:
    """The hyperparameters of some recipes, float32 [heads] each."""
    columns = {name: np.array([getattr(recipe, name) for recipe in recipes], np.float32) for name in Hyper._fields}
    return Hyper(**columns | ({} if columns["dropout"].any() else {"dropout": None}))


def initial(key: jax.Array, columns: int, shape: Shape, heads: int) -> State:
    """The same initial parameters for all heads, and moments of zero."""
    params = head.Head(shape.hidden).init(key, jnp.zeros((1, columns)))["params"]
    return started(jax.tree.map(lambda array: jnp.repeat(array[None], heads, axis=0), params))


def started(params: Params) -> State:
    """Heads before their first step: parameters with a leading axis of heads, and moments of zero."""
    heads = len(jax.tree.leaves(params)[0])
    moments = optax.scale_by_adam().init(params)
    return State(params, moments._replace(count=jnp.repeat(moments.count[None], heads, axis=0)))


@jax.jit
def keep(kept: Params, params: Params, better: np.ndarray) -> Params:
    """The parameters of those heads that are `better`, bool [heads], and for the others what was kept."""

    def choose(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(choose, kept, params)


def objective(
    params: Params,
    x: jax.Array,
    y: jax.Array,
    weight: jax.Array,
    key: jax.Array,
    hyper: Hyper,
    drawn: tuple[tuple[int, int], ...] = (),
    cut: Cut | None = None,
) -> tuple[jax.Array, jax.Array]:
    """What is minimised: the mean log loss of a batch, plus l2 * sum(kernel ** 2).

    Args:
      params: the head's.
      x: float32 [N, columns], standardised.
      y: float32 [N], 0 or 1.
      weight: float32 [N], what a row weighs, 1 on average over all rows, and 0 for padding.
      key: for the dropout.
      hyper: one head's; with label smoothing s the loss is taken to y (1 - s) + s / 2.
      drawn: of `Shape`.
      cut: one head's, where it shares its shape with others.

    Returns:
      The objective, and the sum of the rows' log losses to the labels as they are.
    """
    if cut is not None:  # no gradient reaches the rows of the other columns, which are zeros and stay so
        name, layer = next(iter(head.in_order(params).items()))
        params = params | {name: layer | {"kernel": layer["kernel"] * cut.columns[:, None]}}
    kind = None if cut is None else cut.kind
    logits = head.logits(params, x, 0.0 if hyper.dropout is None else hyper.dropout, key, drawn, kind)
    smoothed = y * (1 - hyper.label_smoothing) + hyper.label_smoothing / 2
    total = (optax.sigmoid_binary_cross_entropy(logits, smoothed) * weight).sum()
    penalty = sum((layer["kernel"] ** 2).sum() for layer in params.values())
    log_loss = (optax.sigmoid_binary_cross_entropy(logits, y) * weight).sum()
    return total / (weight > 0).sum() + hyper.l2 * penalty, log_loss


@functools.partial(jax.jit, static_argnames=("shape",))
def run_chunk(
    state: State,
    chunk: Chunk,
    key: jax.Array,
    scaling: Scaling,
    hyper: Hyper,
    shape: Shape,
    class_weights: np.ndarray | None = None,
    cut: Cut | None = None,
) -> tuple[State, jax.Array]:
    """One pass over a chunk in random order; the last batch is padded and masked. Also returns the sums of log losses.

    `class_weights`, float32 [2], is what rows of each class weigh; None for 1 each. `cut` says what
    each head has of a shape that it shares with others.
    """
    rows = len(chunk.y)
    batches = -(-rows // shape.batch_size)
    order_key, dropout_key = jax.random.split(key)
    order = jnp.pad(jax.random.permutation(order_key, rows), (0, batches * shape.batch_size - rows))
    weight = (jnp.arange(order.size) < rows).astype(jnp.float32)

    def step(state: State, batch: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[State, jax.Array]:
        index, weight, key = batch
        x = standardise(jnp.asarray(chunk.x)[index], scaling)
        y = jnp.asarray(chunk.y)[index]
        weight = weight if class_weights is None else weight * weigh(y, class_weights)

        def step_one(state: State, hyper: Hyper, cut: Cut | None) -> tuple[State, jax.Array]:
            of_head = x, y, weight, key, hyper, shape.drawn, cut
            gradient, total = jax.grad(objective, has_aux=True)(state.params, *of_head)
            updates, moments = optax.scale_by_adam().update(gradient, state.moments)
            rate = hyper.learning_rate * hyper.decay_rate ** (
                state.moments.count.astype(jnp.float32) / shape.decay_steps
            )
            return State(jax.tree.map(lambda p, u: p - rate * u, state.params, updates), moments), total

        return _over_heads(step_one)(state, hyper, cut)

    by_batch = (order.reshape(batches, -1), weight.reshape(batches, -1), jax.random.split(dropout_key, batches))
    state, totals = jax.lax.scan(step, state, by_batch)
    return state, totals.sum(axis=0)


def _over_heads(function: Callable[..., Any]) -> Callable[..., Any]:
    """Vmap over the leading axis; a single head is computed without it, since XLA has faster products for two axes."""

    def apply(*trees: Any) -> Any:
        if jax.tree.leaves(trees)[0].shape[0] > 1:
            return jax.vmap(function)(*trees)
        return jax.tree.map(lambda array: array[None], function(*jax.tree.map(lambda array: array[0], trees)))

    return apply


def weigh(y: jax.Array, class_weights: np.ndarray) -> jax.Array:
    """What rows with these labels weigh, where labels may lie between 0 and 1: float32, of the shape of `y`."""
    return class_weights[0] + (class_weights[1] - class_weights[0]) * y


@jax.jit
def losses(
    params: Params, chunk: Chunk, scaling: Scaling, class_weights: np.ndarray | None = None
) -> tuple[jax.Array, jax.Array]:
    """The heads' sums of log losses, weighed as in `run_chunk`, and numbers of right decisions."""
    x, y = standardise(jnp.asarray(chunk.x), scaling), jnp.asarray(chunk.y)

    def losses_of_one(params: Params) -> tuple[jax.Array, jax.Array]:
        logits = head.logits(params, x)
        right = (logits >= math.log(THRESHOLD / (1 - THRESHOLD))) == (y > 0.5)
        loss = optax.sigmoid_binary_cross_entropy(logits, y)
        return (loss if class_weights is None else loss * weigh(y, class_weights)).sum(), right.sum()

    return _over_heads(losses_of_one)(params)


@jax.jit
def logits(params: Params, chunk: Chunk, scaling: Scaling) -> jax.Array:
    """One head's logits of a chunk, float32 [rows]."""
    return head.logits(params, standardise(jnp.asarray(chunk.x), scaling))
