"""Chunks of features -> fitted heads: by Adam, with epochs and early stopping, or exactly.

An epoch passes over each chunk of features: one chunk, resident on the device, where all fit; else
a chunk a shard, streamed. Where that makes few steps, it does so several times: a head needs steps,
however few the rows are. What a pass computes is in steps.py, exact fits in convex.py.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from catdog_jax.backbone.vgg16 import Params
from catdog_jax.config import Recipe
from catdog_jax.console import progress_bar
from catdog_jax.errors import CatdogError
from catdog_jax.heads import convex, merging, rows, steps
from catdog_jax.heads.head import Epoch, best_epoch
from catdog_jax.heads.rows import Loaders, Scaling
from catdog_jax.heads.steps import Cut, Hyper, Shape, State


class Fit(NamedTuple):
    """The parameters of the best epoch, as they apply to standardised features, and the course of the training."""

    params: Params
    best: Epoch
    history: tuple[Epoch, ...]


def fit(
    recipe: Recipe,
    training: Loaders,
    validation: Loaders,
    scaling: Scaling,
    seed: int,
    log: Callable[[int, Epoch], None] = lambda *_: None,
) -> Fit:
    """Fits one head, and keeps the parameters of the epoch with the lowest validation log loss.

    `training` and `validation` load the chunks of rows, which are standardised by `scaling`.
    The seed decides the initial parameters, the order of the rows and the dropout. `log` is as in `fit_many`.

    Raises:
      CatdogError: a loss is not finite.
    """
    with progress_bar("epochs") as progress:
        task = progress.add_task("train", total=recipe.epochs)

        def show(epoch: int, done: bool, losses: np.ndarray, accuracies: np.ndarray) -> None:
            described = f"train  log loss {losses[0]:.4f}  accuracy {accuracies[0]:.2%}"
            progress.update(task, completed=epoch, total=epoch if done else recipe.epochs, description=described)

        (fitted,) = fit_many([recipe], training, validation, scaling, seed, show, log)
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
    log: Callable[[int, Epoch], None] = lambda *_: None,
    pool: str | None = None,
) -> list[Fit]:
    """Fits heads at once, as heads of one shape; each keeps the parameters of its own best epoch.

    It ends when every head has gone `patience` epochs without a better validation loss, or has left
    the finite numbers; the history of each is cut where it would have ended alone.

    The recipes may differ in what `Hyper` has, in the width of one hidden layer and, where `pool`
    is the pooling of the features and holds theirs, in their pooling: see `merging`. `show` is told
    the epoch, whether it was the last, and the heads' validation losses and accuracies; `log` each
    row of a head's history, with the head's place in `recipes`. The other arguments are as in `fit`.
    """
    first, hyper = recipes[0], steps.hypers(recipes)
    sizes = [len(load().y) for load in training]
    batch_size = min(first.batch_size, max(sizes))
    once = sum(-(-size // batch_size) for size in sizes)
    passes = -(-first.min_steps // once)
    count = once * passes
    columns = training[0]().x.shape[1]
    merged = merging.merge(recipes, pool, columns)
    shape = Shape(merged.hidden, batch_size, max(1, round(first.decay_epochs * count)), merged.drawn)
    weights, judged_by = class_weights(first, training), class_weights(first, validation)
    key, initial_key = jax.random.split(jax.random.key(seed))
    if merged.cut is None:
        state = steps.initial(initial_key, columns, shape, len(recipes))
    else:
        state = steps.started(merged.initial(initial_key, columns))
    kept = state.params
    histories: list[list[Epoch]] = [[] for _ in recipes]
    running = np.ones(len(recipes), bool)
    for epoch in range(1, first.epochs + 1):
        epoch_key = jax.random.fold_in(key, epoch)
        state, train_losses = _run_epoch(state, training, epoch_key, scaling, hyper, shape, weights, passes, merged.cut)
        losses, accuracies = _judge(state.params, validation, scaling, judged_by)
        rates = hyper.learning_rate * hyper.decay_rate ** ((epoch - 1) * count / shape.decay_steps)
        better = np.zeros(len(recipes), bool)
        for i in np.flatnonzero(running):
            row = Epoch(epoch, *(float(column[i]) for column in (rates, train_losses, losses, accuracies)))
            histories[i].append(row)
            log(int(i), row)
            best = best_epoch(histories[i])
            better[i] = best is row
            finite = math.isfinite(row.validation_loss) and math.isfinite(row.train_loss)
            running[i] = finite and epoch - best.epoch < first.patience
        if better.any():
            kept = steps.keep(kept, state.params, better)
        done = epoch == first.epochs or not running.any()
        show(epoch, done, losses, accuracies)
        if done:
            break
    found = jax.tree.map(np.asarray, kept)
    one_by_one = [merged.taken(found, i) for i in range(len(recipes))]
    return [
        Fit(params, best_epoch(history), tuple(history)) for params, history in zip(one_by_one, histories, strict=True)
    ]


def class_weights(recipe: Recipe, loaders: Loaders) -> np.ndarray | None:
    """What rows of each class weigh, float32 [2], under a recipe's `class_weight`; None for 1 each."""
    return rows.class_weights(loaders) if recipe.class_weight == "balanced" else None


def fit_exactly(recipes: Sequence[Recipe], training: Loaders, validation: Loaders, scaling: Scaling) -> list[Fit]:
    """Fits linear heads by `convex`, which may differ in `l2` and in nothing else; the arguments are as in `fit`.

    The history of each is one row, of what it is on training and validation rows.
    """
    chunk = training[0]()  # of rows that `rows.Rows.exact` holds for
    weights, judged_by = (class_weights(recipes[0], part) for part in (training, validation))
    x = (np.asarray(chunk.x, np.float64) - scaling.mean) / scaling.deviation
    y = np.asarray(chunk.y)
    each = np.ones(len(y)) if weights is None else weights[y.astype(np.int64)]
    penalties = np.array([recipe.l2 for recipe in recipes])
    found = convex.fit(x, y, np.broadcast_to(each, (len(recipes), len(y))), penalties)
    params = jax.tree.map(lambda array: array.astype(np.float32), found)
    train_losses, _ = _judge(params, training, scaling, weights)
    losses, accuracies = _judge(params, validation, scaling, judged_by)
    fits = []
    for i in range(len(recipes)):
        row = Epoch(1, 0.0, *(float(column[i]) for column in (train_losses, losses, accuracies)))
        fits.append(Fit(jax.tree.map(lambda array, i=i: array[i], params), row, (row,)))
    return fits


def _run_epoch(
    state: State,
    training: Loaders,
    key: jax.Array,
    scaling: Scaling,
    hyper: Hyper,
    shape: Shape,
    weights: np.ndarray | None,
    passes: int,
    cut: Cut | None,
) -> tuple[State, np.ndarray]:
    """Passes over all chunks, each in random order. Also returns the heads' mean log losses."""
    total, seen = np.zeros(1), 0
    for again in range(passes):
        order_key, pass_key = jax.random.split(jax.random.fold_in(key, again) if again else key)
        for index in jax.random.permutation(order_key, len(training)).tolist():
            chunk = training[index]()
            chunk_key = jax.random.fold_in(pass_key, index)
            state, chunk_total = steps.run_chunk(state, chunk, chunk_key, scaling, hyper, shape, weights, cut)
            total, seen = total + np.asarray(chunk_total, np.float64), seen + len(chunk.y)
    return state, total / seen


def _judge(
    params: Params, loaders: Loaders, scaling: Scaling, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The heads' mean log losses and accuracies over all rows."""
    loss, right, count = np.zeros(1), np.zeros(1), 0
    for load in loaders:
        chunk = load()
        chunk_loss, chunk_right = steps.losses(params, chunk, scaling, weights)
        loss, right = loss + np.asarray(chunk_loss, np.float64), right + np.asarray(chunk_right)
        count += len(chunk.y)
    return loss / count, right / count


def logits(params: Params, loaders: Loaders, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
    """One head's logits and the labels of some rows, each [rows]."""
    parts = [(steps.logits(params, chunk, scaling), chunk.y) for load in loaders for chunk in [load()]]
    values, labels = (np.concatenate([np.asarray(part) for part in side]) for side in zip(*parts, strict=True))
    return values, labels
