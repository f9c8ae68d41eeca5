"""Chunks of features -> fitted heads: optax Adam, exponentially decaying, with an L2 penalty in the loss.

An epoch is a jitted `lax.scan` over each chunk of features: one chunk, resident on the device,
where all fit; else a chunk a shard, streamed. The penalty is Keras' kernel_regularizer, l2 *
sum(kernel ** 2) added to the loss, so Adam rescales its gradient like any other; it is not AdamW's
decoupled weight decay.

Many heads of one shape are fitted at once under vmap: they see the same batches and the same random
bits of the dropout, so a batch is gathered once for all of them, and they differ by their
hyperparameters alone.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from catdog_jax.backbone.vgg16 import Params
from catdog_jax.config import THRESHOLD, Recipe
from catdog_jax.console import progress_bar
from catdog_jax.errors import CatdogError
from catdog_jax.heads import head


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
    """What such heads share: the widths of the hidden layers, rows a step, and steps until the rate has decayed once."""

    hidden: tuple[int, ...]
    batch_size: int
    decay_steps: int


class State(NamedTuple):
    """What a step of the optimisation changes; with a leading axis of heads."""

    params: Params
    moments: Any


class Epoch(NamedTuple):
    """A row of history.csv.

    The learning rate is that of the first step; the losses are log losses without the penalty, in
    training under dropout.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    validation_loss: float
    validation_accuracy: float


class Fit(NamedTuple):
    """The parameters of the best epoch, as they apply to standardised features, and the course of the training."""

    params: Params
    best: Epoch
    history: tuple[Epoch, ...]


def measure(training: Loaders) -> Scaling:
    """The mean and the standard deviation of each column over the training rows, in float64; constant columns get 1."""
    rows, total, squares = 0, 0.0, 0.0
    for x in _parts(training):
        rows, total, squares = rows + len(x), total + x.sum(axis=0), squares + (x**2).sum(axis=0)
    mean = np.asarray(total / rows)
    deviation = np.sqrt(np.maximum(squares / rows - mean**2, 0))
    deviation[deviation < 1e-6] = 1
    return Scaling(mean[None].astype(np.float32), deviation[None].astype(np.float32))


def _parts(training: Loaders) -> Iterator[np.ndarray]:
    """All features in float64, a bounded part at a time."""
    for load in training:
        x = np.asarray(load().x)
        for start in range(0, len(x), 1024):
            yield x[start : start + 1024].astype(np.float64)


def hypers(recipes: Sequence[Recipe]) -> Hyper:
    """The hyperparameters of some recipes, float32 [heads] each."""
    columns = {name: np.array([getattr(recipe, name) for recipe in recipes], np.float32) for name in Hyper._fields}
    return Hyper(**columns | ({} if columns["dropout"].any() else {"dropout": None}))


def fit(recipe: Recipe, training: Loaders, validation: Loaders, scaling: Scaling, seed: int) -> Fit:
    """Fits one head, and keeps the parameters of the epoch with the lowest validation log loss.

    Args:
      recipe: the head's shape and the hyperparameters.
      training: load the chunks of training rows.
      validation: load the chunks of validation rows.
      scaling: how features are standardised.
      seed: decides the initial parameters, the order of the rows and the dropout.

    Raises:
      CatdogError: a loss is not finite.
    """
    with progress_bar("epochs") as progress:
        task = progress.add_task("train", total=recipe.epochs)

        def show(epoch: int, done: bool, losses: np.ndarray, accuracies: np.ndarray) -> None:
            described = f"train  log loss {losses[0]:.4f}  accuracy {accuracies[0]:.2%}"
            progress.update(task, completed=epoch, total=epoch if done else recipe.epochs, description=described)

        (fitted,) = fit_many([recipe], training, validation, scaling, seed, show)
    last = fitted.history[-1]
    if not (math.isfinite(last.validation_loss) and math.isfinite(last.train_loss)):
        raise CatdogError(
            f"epoch {last.epoch}: expected a finite loss, found {last.train_loss} in training and {last.validation_loss} in "
            f"validation. Lower --learning-rate (it is {recipe.learning_rate}), or check the features."
        )
    return fitted


def fit_many(
    recipes: Sequence[Recipe],
    training: Loaders,
    validation: Loaders,
    scaling: Scaling,
    seed: int,
    show: Callable[[int, bool, np.ndarray, np.ndarray], None] = lambda *_: None,
) -> list[Fit]:
    """Fits heads of one shape at once; each keeps the parameters of its own best epoch.

    It ends when every head has gone `patience` epochs without a better validation loss, or has left
    the finite numbers; the history of each is cut where it would have ended alone.

    Args:
      recipes: they may differ in what `Hyper` has, and in nothing else.
      training: load the chunks of training rows.
      validation: load the chunks of validation rows.
      scaling: how features are standardised.
      seed: decides the initial parameters, the order of the rows and the dropout, alike for all
        heads.
      show: is told the epoch, whether it was the last, and the heads' validation losses and
        accuracies.

    Returns:
      As many as there are recipes, in their order.
    """
    first, hyper = recipes[0], hypers(recipes)
    steps = sum(-(-len(load().y) // first.batch_size) for load in training)
    shape = Shape(first.hidden, first.batch_size, max(1, round(first.decay_epochs * steps)))
    key, initial_key = jax.random.split(jax.random.key(seed))
    state = _initial(initial_key, training[0]().x.shape[1], shape, len(recipes))
    kept = jax.tree.map(np.array, state.params)
    histories: list[list[Epoch]] = [[] for _ in recipes]
    running = np.ones(len(recipes), bool)
    for epoch in range(1, first.epochs + 1):
        state, train_losses = _run_epoch(state, training, jax.random.fold_in(key, epoch), scaling, hyper, shape)
        losses, accuracies = _validate(state.params, validation, scaling)
        rates = hyper.learning_rate * hyper.decay_rate ** ((epoch - 1) * steps / shape.decay_steps)
        for i in np.flatnonzero(running):
            row = Epoch(epoch, *(float(column[i]) for column in (rates, train_losses, losses, accuracies)))
            histories[i].append(row)
            best = _best(histories[i])
            if best is row:
                jax.tree.map(
                    lambda old, new, i=i: old.__setitem__(i, new[i]), kept, jax.tree.map(np.asarray, state.params)
                )
            finite = math.isfinite(row.validation_loss) and math.isfinite(row.train_loss)
            running[i] = finite and epoch - best.epoch < first.patience
        done = epoch == first.epochs or not running.any()
        show(epoch, done, losses, accuracies)
        if done:
            break
    one_by_one = [head.in_order(jax.tree.map(lambda array, i=i: array[i], kept)) for i in range(len(recipes))]
    return [Fit(params, _best(history), tuple(history)) for params, history in zip(one_by_one, histories, strict=True)]


def _best(history: Sequence[Epoch]) -> Epoch:
    """The first epoch of the lowest validation loss; what is not finite is the highest."""
    return min(history, key=lambda row: row.validation_loss if math.isfinite(row.validation_loss) else math.inf)


def _initial(key: jax.Array, columns: int, shape: Shape, heads: int) -> State:
    """The same initial parameters for all heads, and moments of zero."""
    params = head.Head(shape.hidden).init(key, jnp.zeros((1, columns)))["params"]
    state = State(params, optax.scale_by_adam().init(params))
    return jax.tree.map(lambda array: jnp.repeat(array[None], heads, axis=0), state)


def _run_epoch(
    state: State, training: Loaders, key: jax.Array, scaling: Scaling, hyper: Hyper, shape: Shape
) -> tuple[State, np.ndarray]:
    """One pass over all chunks, in random order. Also returns the heads' mean log losses."""
    order_key, key = jax.random.split(key)
    total, rows = np.zeros(1), 0
    for index in jax.random.permutation(order_key, len(training)).tolist():
        chunk = training[index]()
        state, chunk_total = _run_chunk(state, chunk, jax.random.fold_in(key, index), scaling, hyper, shape)
        total, rows = total + np.asarray(chunk_total, np.float64), rows + len(chunk.y)
    return state, total / rows


def _validate(params: Params, validation: Loaders, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
    """The heads' mean log losses and accuracies over all validation rows."""
    loss, right, rows = np.zeros(1), np.zeros(1), 0
    for load in validation:
        chunk = load()
        chunk_loss, chunk_right = _judge(params, chunk, scaling)
        loss, right = loss + np.asarray(chunk_loss, np.float64), right + np.asarray(chunk_right)
        rows += len(chunk.y)
    return loss / rows, right / rows


def judge(params: Params, rows: Loaders, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
    """One head's logits and the labels of some rows, each [rows]."""
    parts = [(_logits(params, chunk, scaling), chunk.y) for load in rows for chunk in [load()]]
    logits, labels = (np.concatenate([np.asarray(part) for part in side]) for side in zip(*parts, strict=True))
    return logits, labels


@jax.jit
def _logits(params: Params, chunk: Chunk, scaling: Scaling) -> jax.Array:
    return head.logits(params, standardise(jnp.asarray(chunk.x), scaling))


def standardise(x: jax.Array, scaling: Scaling) -> jax.Array:
    """Features of any floating type, [rows, columns], made standard, float32."""
    return (x.astype(jnp.float32) - scaling.mean) / scaling.deviation


def objective(
    params: Params, x: jax.Array, y: jax.Array, weight: jax.Array, key: jax.Array, hyper: Hyper
) -> tuple[jax.Array, jax.Array]:
    """What is minimised: the mean log loss of a batch, plus l2 * sum(kernel ** 2).

    Args:
      params: the head's.
      x: float32 [N, columns], standardised.
      y: float32 [N], 0 or 1.
      weight: float32 [N], 1 for a row and 0 for padding.
      key: for the dropout.
      hyper: one head's; with label smoothing s the loss is taken to y (1 - s) + s / 2.

    Returns:
      The objective, and the sum of the rows' log losses to the labels as they are.
    """
    logits = head.logits(params, x, 0.0 if hyper.dropout is None else hyper.dropout, key)
    smoothed = y * (1 - hyper.label_smoothing) + hyper.label_smoothing / 2
    total = (optax.sigmoid_binary_cross_entropy(logits, smoothed) * weight).sum()
    penalty = sum((layer["kernel"] ** 2).sum() for layer in params.values())
    log_loss = (optax.sigmoid_binary_cross_entropy(logits, y) * weight).sum()
    return total / weight.sum() + hyper.l2 * penalty, log_loss


@functools.partial(jax.jit, static_argnames=("shape",))
def _run_chunk(
    state: State, chunk: Chunk, key: jax.Array, scaling: Scaling, hyper: Hyper, shape: Shape
) -> tuple[State, jax.Array]:
    """One pass over a chunk in random order; the last batch is padded and masked. Also returns the sums of log losses."""
    rows = len(chunk.y)
    batches = -(-rows // shape.batch_size)
    order_key, dropout_key = jax.random.split(key)
    order = jnp.pad(jax.random.permutation(order_key, rows), (0, batches * shape.batch_size - rows))
    weight = (jnp.arange(order.size) < rows).astype(jnp.float32)

    def step(state: State, batch: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[State, jax.Array]:
        index, weight, key = batch
        x = standardise(jnp.asarray(chunk.x)[index], scaling)
        y = jnp.asarray(chunk.y)[index]

        def step_one(state: State, hyper: Hyper) -> tuple[State, jax.Array]:
            gradient, total = jax.grad(objective, has_aux=True)(state.params, x, y, weight, key, hyper)
            updates, moments = optax.scale_by_adam().update(gradient, state.moments)
            rate = hyper.learning_rate * hyper.decay_rate ** (
                state.moments.count.astype(jnp.float32) / shape.decay_steps
            )
            return State(jax.tree.map(lambda p, u: p - rate * u, state.params, updates), moments), total

        return _over_heads(step_one)(state, hyper)

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


@jax.jit
def _judge(params: Params, chunk: Chunk, scaling: Scaling) -> tuple[jax.Array, jax.Array]:
    """The heads' sums of log losses and numbers of right decisions."""
    x, y = standardise(jnp.asarray(chunk.x), scaling), jnp.asarray(chunk.y)

    def judge_one(params: Params) -> tuple[jax.Array, jax.Array]:
        logits = head.logits(params, x)
        right = (logits >= math.log(THRESHOLD / (1 - THRESHOLD))) == (y > 0.5)
        return optax.sigmoid_binary_cross_entropy(logits, y).sum(), right.sum()

    return _over_heads(judge_one)(params)
