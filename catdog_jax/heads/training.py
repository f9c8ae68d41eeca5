"""`catdog train`: a feature cache -> a trained head in a run directory. What happens in between is in fitting.py."""

import csv
import dataclasses
import functools
import io
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from rich.table import Table

from catdog_jax import __version__
from catdog_jax.backbone.pooling import Pool
from catdog_jax.backbone.vgg16 import Params
from catdog_jax.config import PRESETS, Recipe, TrainConfig
from catdog_jax.console import console, show
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import buckets
from catdog_jax.heads import calibration, fitting, head, search
from catdog_jax.heads.calibration import Calibration
from catdog_jax.heads.fitting import Chunk, Epoch, Loaders
from catdog_jax.heads.run_directory import SWEEP, RunDirectory, removed
from catdog_jax.reporting import plots

_RANGES = {
    "dropout": (0, 0.999),
    "l2": (0, math.inf),
    "learning_rate": (1e-12, math.inf),
    "decay_rate": (1e-12, 1),
    "batch_size": (1, math.inf),
    "epochs": (1, math.inf),
    "patience": (1, math.inf),
}
_SHOWN = 8  # rows of a sweep on stdout


def _calibrated(result: search.Result, validation: Loaders) -> tuple[Params, Calibration]:
    """The parameters with the temperature of the validation rows folded in, and what was fitted."""
    logits, labels = fitting.judge(result.fit.params, validation, result.scaling)
    told = calibration.calibrate(logits, labels)
    return calibration.fold_temperature(result.fit.params, told.temperature), told


def _loaded(cache: FeatureCache, split: str, recipe: Recipe, config: TrainConfig) -> Loaders:
    return loaders(cache, split, recipe, config.resident_gib)


def _fit(recipe: Recipe, cache: FeatureCache, config: TrainConfig) -> search.Result:
    training, validation = (_loaded(cache, split, recipe, config) for split in ("train", "validation"))
    scaling = fitting.measure(training) if recipe.standardise else fitting.UNSCALED
    return search.Result(recipe, fitting.fit(recipe, training, validation, scaling, config.seed), scaling)


def _search(base: Recipe, cache: FeatureCache, config: TrainConfig) -> tuple[search.Result, dict[str, bytes]]:
    """The best of many heads, and what shows them all: the contents of sweep.csv and sweep.png."""
    assert config.sweep is not None
    pools = [pool for pool in search.POOLS if cache.gives(pool)] or [base.pool]
    recipes = search.draw(base, pools if config.pool is None else [base.pool], config.sweep, config.seed)
    load = functools.partial(loaders, resident_gib=config.resident_gib)
    results = search.search(recipes, cache, load, config.seed)
    losses = [min(result.fit.best.validation_loss, sys.float_info.max) for result in results]
    drawn = plots.parallel(search.settings(results), losses, "validation log loss")
    shown = Table(
        "", "pool", "hidden", "drop", "L2", "rate", "decay", "smooth", "log loss", "accuracy", title="the best heads"
    )
    for place, row in enumerate(list(csv.reader(search.table(results[:_SHOWN]).splitlines()))[1:], 1):
        shown.add_row(str(place), *row[:-1])
    show(shown)
    return results[0], dict(zip(SWEEP, (search.table(results).encode(), drawn), strict=True))


def _of_cache(recipe: Recipe, config: TrainConfig, cache: FeatureCache) -> Recipe:
    """The recipe, with the cache's own pooling in place of a preset's that the cache does not hold."""
    if config.pool is not None or cache.gives(recipe.pool):
        return recipe
    stored = cache.pool
    message = f"{config.features} holds {stored} features: training on these, not on {recipe.pool} as the preset has it"
    console.print(message, markup=False, soft_wrap=True)
    return dataclasses.replace(recipe, pool=stored.value)


def resolve(config: TrainConfig) -> Recipe:
    """The preset with the options that were given in place of its own.

    Raises:
      UsageError: an option is out of its range.
    """
    shared = {field.name for field in dataclasses.fields(Recipe)} & {field.name for field in dataclasses.fields(config)}
    given = {name: getattr(config, name) for name in shared if getattr(config, name) is not None}
    if config.head == "linear":
        if config.hidden:
            raise UsageError(
                f"--hidden: expected none with --head linear, found {config.hidden}. Leave one of the two out."
            )
        given["hidden"] = ()
    recipe = dataclasses.replace(PRESETS[config.preset], **given)
    if config.sweep is not None and config.sweep < 1:
        raise UsageError(f"--sweep: expected 1 or more heads, found {config.sweep}. 48 is a good number.")
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

    The views of a photo are rows of their own for training; a photo is judged by its first view, as
    it is when deployed.
    """
    views = len(cache.views) if split == "train" else 1
    names = cache.shard_names(split)

    def load(name: str) -> Chunk:
        x = np.asarray(cache.load_shard(name, recipe.pool))[:, :views]
        return Chunk(x.reshape(-1, x.shape[-1]), np.repeat(cache.shard_labels(name), views).astype(np.float32))

    # Pooling computes it
    stored_type = cache.fingerprint.dtype if cache.pool == recipe.pool else np.float32
    size = cache.rows(split) * views * Pool(recipe.pool).columns * np.dtype(stored_type).itemsize
    if size > resident_gib * 2**30:
        return [functools.partial(load, name) for name in names]
    whole = Chunk(*(jnp.asarray(np.concatenate(parts)) for parts in zip(*map(load, names), strict=True)))
    return [lambda: whole]


def _is_there(path: Path, fitted: head.FittedHead) -> bool:
    """Whether a run directory holds this very head."""
    try:
        return head.digest(head.load(path).params) == head.digest(fitted.params)
    except CatdogError:
        return False


def _write(config: TrainConfig, result: search.Result, fitted: head.FittedHead, swept: Mapping[str, bytes]) -> None:
    """Writes a head and what belongs to it; killed anywhere in between, `RunDirectory.read_settings` and `verify` say so."""
    run = RunDirectory(config.out)
    settings = {
        "version": __version__,
        "features": buckets.seen_from(config.out, config.features),
        "seed": config.seed,
        "preset": config.preset,
        "recipe": dataclasses.asdict(result.recipe),
        "head_sha256": head.digest(fitted.params),
    }
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([Epoch._fields, *result.fit.history])
    if stale := run.make_way(_is_there(run.head, fitted), bool(swept)):
        console.print(removed(run.path, stale), markup=False, soft_wrap=True)
    head.save(run.head, fitted)
    run.write_settings(settings, {run.history.name: table.getvalue().encode(), **swept})
