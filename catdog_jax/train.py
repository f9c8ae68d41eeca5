"""Cached features -> a trained head: optax Adam, exponentially decaying, with an L2 penalty in the loss.

An epoch is a jitted `lax.scan` over each chunk of features: one chunk, resident on the device, where all fit; else a chunk a
shard, streamed. The penalty is Keras' kernel_regularizer, l2 * sum(kernel ** 2) added to the loss, so Adam rescales its
gradient like any other; it is not AdamW's decoupled weight decay.
"""

import csv
import dataclasses
import functools
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from catdog_jax import __version__, head, storage
from catdog_jax.cache import FeatureCache
from catdog_jax.config import PRESETS, THRESHOLD, Recipe, TrainConfig
from catdog_jax.console import console, progress_bar
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.vgg16 import Params, columns

_RANGES = {
    "dropout": (0, 0.999),
    "l2": (0, math.inf),
    "learning_rate": (1e-12, math.inf),
    "decay_rate": (1e-12, 1),
    "batch_size": (1, math.inf),
    "epochs": (1, math.inf),
    "patience": (1, math.inf),
}
_DERIVED = (  # what later stages make from a head, by their own names; a file that the user named is the user's
    *("model.onnx", "metrics.json", "metrics-train.json", "metrics-validation.json"),
    *("report.html", "report-train.html", "report-validation.html"),
)


class Chunk(NamedTuple):
    """Rows of features: x [rows, columns] as stored, y float32 [rows], 0 or 1."""

    x: Any
    y: Any


Loaders = Sequence[Callable[[], Chunk]]


class Scaling(NamedTuple):
    """What makes features standard: (x - mean) / deviation, each float32 [1, columns], or [1, 1] for all alike."""

    mean: Any
    deviation: Any


class State(NamedTuple):
    """What a step of the optimisation changes."""

    params: Params
    moments: Any


class Epoch(NamedTuple):
    """A row of history.csv.

    The learning rate is that of the first step; the losses are log losses without the penalty, in training under dropout.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    validation_loss: float
    validation_accuracy: float


@dataclasses.dataclass(frozen=True)
class Fit:
    """The parameters of the best epoch, as they apply to standardised features, and the course of the training."""

    params: Params
    best: Epoch
    history: tuple[Epoch, ...]


def train(config: TrainConfig) -> head.FittedHead:
    """Trains a head on a feature cache; writes head.safetensors, history.csv and config.json into the run directory.

    What later stages made of an earlier, different head in the same directory is removed: it would describe the wrong one.

    Raises:
      CatdogError: the cache is unfinished, damaged, or does not hold the pooling; the loss does not stay finite.
      UsageError: an option is out of its range.
    """
    cache = FeatureCache.open(config.features)
    recipe = _fitting(resolve(config), config, cache)
    training, validation = (loaders(cache, split, recipe, config.resident_gib) for split in ("train", "validation"))
    scaling = measure(training) if recipe.standardise else Scaling(np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))
    result = fit(recipe, training, validation, scaling, config.seed)
    params = result.params
    if recipe.standardise:
        params = head.fold_standardisation(params, scaling.mean[0], scaling.deviation[0])
    fitted = head.FittedHead(recipe.pool, params, cache.classes, cache.fingerprint, dataclasses.asdict(recipe))
    _write(config, result, fitted)
    console.print(
        f"trained {len(result.history)} epochs; kept epoch {result.best.epoch}: validation log loss "
        f"{result.best.validation_loss:.4f}, accuracy {result.best.validation_accuracy:.2%}"
    )
    return fitted


def _fitting(recipe: Recipe, config: TrainConfig, cache: FeatureCache) -> Recipe:
    """The recipe, with the cache's own pooling in place of a preset's that the cache does not hold."""
    if config.pool is not None or cache.gives(recipe.pool):
        return recipe
    stored = cache.fingerprint["pool"]
    message = f"{config.features} holds {stored} features: training on these, not on {recipe.pool} as the preset has it"
    console.print(message, markup=False, soft_wrap=True)
    return dataclasses.replace(recipe, pool=stored)


def resolve(config: TrainConfig) -> Recipe:
    """The preset with the options that were given in place of its own.

    Raises:
      UsageError: an option is out of its range.
    """
    shared = {field.name for field in dataclasses.fields(Recipe)} & {field.name for field in dataclasses.fields(config)}
    given = {name: getattr(config, name) for name in shared if getattr(config, name) is not None}
    if config.head == "linear":
        if config.hidden:
            raise UsageError(f"--hidden: expected none with --head linear, found {config.hidden}. Leave one of the two out.")
        given["hidden"] = ()
    recipe = dataclasses.replace(PRESETS[config.preset], **given)
    if not 0 <= config.seed < 2**32:
        raise UsageError(f"--seed: expected 0 to {2**32 - 1}, found {config.seed}.")
    for name, (low, high) in _RANGES.items():
        if not low <= getattr(recipe, name) <= high:
            raise UsageError(f"--{name.replace('_', '-')}: expected {low} to {high}, found {getattr(recipe, name)}.")
    if any(width < 1 for width in recipe.hidden):
        raise UsageError(f"--hidden: expected widths of 1 or more, found {recipe.hidden}.")
    return recipe


def loaders(cache: FeatureCache, split: str, recipe: Recipe, resident_gib: float) -> Loaders:
    """What loads the chunks of a split: one chunk that stays on the device, or one a shard where all would be too large.

    The views of a photo are rows of their own for training; a photo is judged by its first view, as it is when deployed.
    """
    views = len(cache.views) if split == "train" else 1
    names = cache.shard_names(split)

    def load(name: str) -> Chunk:
        x = np.asarray(cache.load_shard(name, recipe.pool))[:, :views]
        return Chunk(x.reshape(-1, x.shape[-1]), np.repeat(cache.shard_labels(name), views).astype(np.float32))

    stored_type = cache.fingerprint["dtype"] if cache.fingerprint["pool"] == recipe.pool else np.float32  # pooling computes it
    size = cache.rows(split) * views * columns(recipe.pool) * np.dtype(stored_type).itemsize
    if size > resident_gib * 2**30:
        return [functools.partial(load, name) for name in names]
    whole = Chunk(*(jnp.asarray(np.concatenate(parts)) for parts in zip(*map(load, names), strict=True)))
    return [lambda: whole]


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
    key, initial_key = jax.random.split(jax.random.key(seed))
    first = training[0]()
    steps = sum(-(-len(load().y) // recipe.batch_size) for load in training) if len(training) > 1 else _steps(first, recipe)
    params = head.Head(recipe.hidden).init(initial_key, jnp.zeros((1, first.x.shape[1])))["params"]
    state = State(params, _optimizer(recipe, steps).init(params))
    history: list[Epoch] = []
    best, best_params = None, params
    with progress_bar("epochs") as progress:
        task = progress.add_task("train", total=recipe.epochs)
        for epoch in range(1, recipe.epochs + 1):
            epoch_key = jax.random.fold_in(key, epoch)
            state, train_loss = _run_epoch(state, training, epoch_key, scaling, recipe, steps)
            loss, accuracy = _validate(state.params, validation, scaling)
            history.append(Epoch(epoch, float(_schedule(recipe, steps)((epoch - 1) * steps)), train_loss, loss, accuracy))
            progress.update(task, advance=1, description=f"train  log loss {loss:.4f}  accuracy {accuracy:.2%}")
            if not (math.isfinite(loss) and math.isfinite(train_loss)):
                raise CatdogError(
                    f"epoch {epoch}: expected a finite loss, found {train_loss} in training and {loss} in validation. "
                    f"Lower --learning-rate (it is {recipe.learning_rate}), or check the features."
                )
            if best is None or loss < best.validation_loss:
                best, best_params = history[-1], jax.tree.map(np.asarray, state.params)
            elif epoch - best.epoch >= recipe.patience:
                progress.update(task, total=epoch)
                break
    assert best is not None
    return Fit(head.in_order(best_params), best, tuple(history))


def _steps(chunk: Chunk, recipe: Recipe) -> int:
    return -(-len(chunk.y) // recipe.batch_size)


def _run_epoch(
    state: State, training: Loaders, key: jax.Array, scaling: Scaling, recipe: Recipe, steps: int
) -> tuple[State, float]:
    """One pass over all chunks, in random order. Also returns the mean log loss."""
    order_key, key = jax.random.split(key)
    total, rows = 0.0, 0
    for index in jax.random.permutation(order_key, len(training)).tolist():
        chunk = training[index]()
        state, chunk_total = _run_chunk(state, chunk, jax.random.fold_in(key, index), scaling, recipe, steps)
        total, rows = total + float(chunk_total), rows + len(chunk.y)
    return state, total / rows


def _validate(params: Params, validation: Loaders, scaling: Scaling) -> tuple[float, float]:
    """The mean log loss and the accuracy over all validation rows."""
    loss, right, rows = 0.0, 0, 0
    for load in validation:
        chunk = load()
        chunk_loss, chunk_right = _judge(params, chunk, scaling)
        loss, right, rows = loss + float(chunk_loss), right + int(chunk_right), rows + len(chunk.y)
    return loss / rows, right / rows


def _schedule(recipe: Recipe, steps: int) -> optax.Schedule:
    return optax.exponential_decay(recipe.learning_rate, max(1, round(recipe.decay_epochs * steps)), recipe.decay_rate)


def _optimizer(recipe: Recipe, steps: int) -> optax.GradientTransformation:
    return optax.adam(_schedule(recipe, steps))


def _standardise(x: jax.Array, scaling: Scaling) -> jax.Array:
    return (x.astype(jnp.float32) - scaling.mean) / scaling.deviation


def objective(
    params: Params, x: jax.Array, y: jax.Array, weight: jax.Array, key: jax.Array, recipe: Recipe
) -> tuple[jax.Array, jax.Array]:
    """What is minimised: the mean log loss of a batch, plus l2 * sum(kernel ** 2).

    Args:
      params: the head's.
      x: float32 [N, columns], standardised.
      y: float32 [N], 0 or 1.
      weight: float32 [N], 1 for a row and 0 for padding.
      key: for the dropout.
      recipe: the head's shape, dropout and l2.

    Returns:
      The objective, and the sum of the rows' log losses.
    """
    logits = head.logits(params, x, recipe.dropout, key)
    total = (optax.sigmoid_binary_cross_entropy(logits, y) * weight).sum()
    penalty = sum((layer["kernel"] ** 2).sum() for layer in params.values())
    return total / weight.sum() + recipe.l2 * penalty, total


@functools.partial(jax.jit, static_argnames=("recipe", "steps"))
def _run_chunk(
    state: State, chunk: Chunk, key: jax.Array, scaling: Scaling, recipe: Recipe, steps: int
) -> tuple[State, jax.Array]:
    """One pass over a chunk in random order; the last batch is padded and masked. Also returns the sum of log losses."""
    rows = len(chunk.y)
    batches = _steps(chunk, recipe)
    order_key, dropout_key = jax.random.split(key)
    order = jnp.pad(jax.random.permutation(order_key, rows), (0, batches * recipe.batch_size - rows))
    weight = (jnp.arange(order.size) < rows).astype(jnp.float32)

    def step(state: State, batch: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[State, jax.Array]:
        index, weight, key = batch
        x = _standardise(jnp.asarray(chunk.x)[index], scaling)
        y = jnp.asarray(chunk.y)[index]
        gradient, total = jax.grad(objective, has_aux=True)(state.params, x, y, weight, key, recipe)
        updates, moments = _optimizer(recipe, steps).update(gradient, state.moments, state.params)
        return State(optax.apply_updates(state.params, updates), moments), total

    by_batch = (order.reshape(batches, -1), weight.reshape(batches, -1), jax.random.split(dropout_key, batches))
    state, totals = jax.lax.scan(step, state, by_batch)
    return state, totals.sum()


@jax.jit
def _judge(params: Params, chunk: Chunk, scaling: Scaling) -> tuple[jax.Array, jax.Array]:
    """The sum of log losses and the number of right decisions."""
    logits = head.logits(params, _standardise(jnp.asarray(chunk.x), scaling))
    right = (logits >= math.log(THRESHOLD / (1 - THRESHOLD))) == (jnp.asarray(chunk.y) > 0.5)
    return optax.sigmoid_binary_cross_entropy(logits, chunk.y).sum(), right.sum()


def _differs(path: Path, fitted: head.FittedHead) -> bool:
    """Whether a run directory's head is another one, or cannot be read."""
    try:
        return head.digest(head.load(path).params) != head.digest(fitted.params)
    except CatdogError:
        return True


def _write(config: TrainConfig, result: Fit, fitted: head.FittedHead) -> None:
    path = config.out / "head.safetensors"
    settings = {
        "version": __version__,
        "features": os.path.relpath(config.features.resolve(), config.out.resolve()),  # as seen from here
        "seed": config.seed,
        "preset": config.preset,
        "recipe": fitted.recipe,
    }
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([Epoch._fields, *result.history])
    if path.is_file() and _differs(path, fitted):
        for name in _DERIVED:
            (config.out / name).unlink(missing_ok=True)
    head.save(path, fitted)
    storage.write_bytes(config.out / "history.csv", table.getvalue().encode())
    storage.write_json(config.out / "config.json", settings)
