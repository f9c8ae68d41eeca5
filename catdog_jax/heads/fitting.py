"""Chunks of features -> fitted heads: epochs, and early stopping.

An epoch passes over each chunk of features: one chunk, resident on the device, where all fit; else
a chunk a shard, streamed. What a pass computes is in steps.py.
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
from catdog_jax.heads import head, steps
from catdog_jax.heads.head import Epoch, best_epoch
from catdog_jax.heads.rows import Loaders, Scaling
from catdog_jax.heads.steps import Hyper, Shape, State


class Fit(NamedTuple):
    """The parameters of the best epoch, as they apply to standardised features, and the course of the training."""

    params: Params
    best: Epoch
    history: tuple[Epoch, ...]


def fit(recipe: Recipe, training: Loaders, validation: Loaders, scaling: Scaling, seed: int) -> Fit:
    """Fits one head, and keeps the parameters of the epoch with the lowest validation log loss.

    `training` and `validation` load the chunks of rows, which are standardised by `scaling`.
    The seed decides the initial parameters, the order of the rows and the dropout.

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

    The recipes may differ in what `Hyper` has, and in nothing else. `show` is told the epoch,
    whether it was the last, and the heads' validation losses and accuracies. The other
    arguments are as in `fit`.
    """
    first, hyper = recipes[0], steps.hypers(recipes)
    count = sum(-(-len(load().y) // first.batch_size) for load in training)
    shape = Shape(first.hidden, first.batch_size, max(1, round(first.decay_epochs * count)))
    key, initial_key = jax.random.split(jax.random.key(seed))
    state = steps.initial(initial_key, training[0]().x.shape[1], shape, len(recipes))
    kept = jax.tree.map(np.array, state.params)
    histories: list[list[Epoch]] = [[] for _ in recipes]
    running = np.ones(len(recipes), bool)
    for epoch in range(1, first.epochs + 1):
        state, train_losses = _run_epoch(state, training, jax.random.fold_in(key, epoch), scaling, hyper, shape)
        losses, accuracies = _validate(state.params, validation, scaling)
        rates = hyper.learning_rate * hyper.decay_rate ** ((epoch - 1) * count / shape.decay_steps)
        for i in np.flatnonzero(running):
            row = Epoch(epoch, *(float(column[i]) for column in (rates, train_losses, losses, accuracies)))
            histories[i].append(row)
            best = best_epoch(histories[i])
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
    return [
        Fit(params, best_epoch(history), tuple(history)) for params, history in zip(one_by_one, histories, strict=True)
    ]


def _run_epoch(
    state: State, training: Loaders, key: jax.Array, scaling: Scaling, hyper: Hyper, shape: Shape
) -> tuple[State, np.ndarray]:
    """One pass over all chunks, in random order. Also returns the heads' mean log losses."""
    order_key, key = jax.random.split(key)
    total, rows = np.zeros(1), 0
    for index in jax.random.permutation(order_key, len(training)).tolist():
        chunk = training[index]()
        state, chunk_total = steps.run_chunk(state, chunk, jax.random.fold_in(key, index), scaling, hyper, shape)
        total, rows = total + np.asarray(chunk_total, np.float64), rows + len(chunk.y)
    return state, total / rows


def _validate(params: Params, validation: Loaders, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
    """The heads' mean log losses and accuracies over all validation rows."""
    loss, right, rows = np.zeros(1), np.zeros(1), 0
    for load in validation:
        chunk = load()
        chunk_loss, chunk_right = steps.losses(params, chunk, scaling)
        loss, right = loss + np.asarray(chunk_loss, np.float64), right + np.asarray(chunk_right)
        rows += len(chunk.y)
    return loss / rows, right / rows


def logits(params: Params, rows: Loaders, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
    """One head's logits and the labels of some rows, each [rows]."""
    parts = [(steps.logits(params, chunk, scaling), chunk.y) for load in rows for chunk in [load()]]
    values, labels = (np.concatenate([np.asarray(part) for part in side]) for side in zip(*parts, strict=True))
    return values, labels
