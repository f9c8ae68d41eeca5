"""Random search over how heads are built and trained (Bergstra & Bengio, 2012), dozens of heads on the same cached features.

Heads are fitted at once where that pays: linear heads of one pooling everywhere, all others on an
accelerator, as heads of one shape (see `merging`). On a CPU the products of a wide head fill the
cores alone, so those are fitted one after the other. Linear heads are fitted exactly where their
rows allow it. Chosen is the lowest validation log loss.
"""

import csv
import dataclasses
import io
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from catdog_jax.backbone import pooling
from catdog_jax.config import Pool, Recipe
from catdog_jax.console import progress_bar
from catdog_jax.heads import fitting, merging, rows
from catdog_jax.heads.fitting import Fit
from catdog_jax.heads.head import Epoch, Trial
from catdog_jax.heads.rows import Loaders, Scaling
from catdog_jax.heads.training_log import TrainingLog
from catdog_jax.reporting import plots

COLUMNS = ("pool", "hidden", "dropout", "l2", "learning_rate", "decay_rate", "label_smoothing")
POOLS: tuple[Pool, ...] = ("avg", "max", "avg+max")
_HIDDEN: tuple[tuple[int, ...], ...] = ((), (256,), (512,), (1024,))
_DROPOUT = (0.0, 0.3, 0.5, 0.7, 0.8)  # a linear head takes none: it would drop features
_DECAY = (0.85, 0.9, 0.95)
_SMOOTHING = (0.0, 0.0, 0.02, 0.05)
_LEARNING_RATE, _L2 = (1e-4, 3e-3), (1e-5, 1e-2)  # the ends of log-uniform distributions
OF_ADAM = ("dropout", "learning_rate", "decay_rate", "batch_size", "epochs", "patience")  # what an exact fit has not
_NO_LOG = TrainingLog(None)
_EXACT_L2 = (5e-4, 0.5)  # those of the penalty of an exact fit, times the rows


@dataclasses.dataclass(frozen=True)
class Result:
    """A recipe, what became of it, and how its features were standardised."""

    recipe: Recipe
    fit: Fit
    scaling: Scaling


def described(recipe: Recipe) -> dict[str, Any]:
    """The fields of a recipe that took part: an exact fit has none of Adam's."""
    values = dataclasses.asdict(recipe)
    unused = (*OF_ADAM, "decay_epochs", "min_steps", "label_smoothing") if recipe.solver == "newton" else ()
    return {name: value for name, value in values.items() if name not in unused}


def fit_one(recipe: Recipe, load: Callable[[str, str], Loaders], seed: int, log: TrainingLog = _NO_LOG) -> Result:
    """Fits one recipe; see `search` for the arguments. Raises as `fitting.fit`."""
    training, validation = (load(split, pooling.Pool(recipe.pool)) for split in ("train", "validation"))
    scaling = _scaling(recipe, training)
    log.begin(1, described(recipe))
    if recipe.solver == "newton":
        (fitted,) = fitting.fit_exactly([recipe], training, validation, scaling)
        log.epoch(1, fitted.best)
    else:
        fitted = fitting.fit(recipe, training, validation, scaling, seed, lambda _, row: log.epoch(1, row))
    log.end(1, described(recipe), fitted.best)
    return Result(recipe, fitted, scaling)


def _scaling(recipe: Recipe, training: Loaders) -> Scaling:
    if recipe.solver == "newton":
        return rows.common_scaling(training, recipe.pool)
    return rows.measure(training) if recipe.standardise else rows.UNSCALED


def draw(
    base: Recipe, pools: Sequence[Pool], count: int, seed: int, exact: Callable[[str], bool], rows: int
) -> list[Recipe]:
    """Random recipes; the first is `base` itself, so that the choice is never worse than it on validation.

    What is not searched over (batch size, epochs, patience, standardisation) is that of `base`.
    Linear heads are fitted exactly where `exact` says that the rows of a pooling, so many, allow it.
    """
    rng = np.random.default_rng(seed)

    def log_uniform(low: float, high: float) -> float:
        return float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.3g}")

    def drawn() -> Recipe:
        hidden = _HIDDEN[int(rng.integers(len(_HIDDEN)))]
        recipe = dataclasses.replace(
            base,
            solver="adam",
            pool=pools[int(rng.integers(len(pools)))],
            hidden=hidden,
            dropout=float(rng.choice(_DROPOUT)) if hidden else 0.0,
            l2=log_uniform(*_L2),
            learning_rate=log_uniform(*_LEARNING_RATE),
            decay_rate=float(rng.choice(_DECAY)),
            label_smoothing=float(rng.choice(_SMOOTHING)),
        )
        if hidden or not exact(recipe.pool):
            return recipe
        place = math.log(recipe.l2 / _L2[0]) / math.log(_L2[1] / _L2[0])  # in the one range, and so in the other
        l2 = _EXACT_L2[0] * (_EXACT_L2[1] / _EXACT_L2[0]) ** place / rows
        return dataclasses.replace(
            recipe, solver="newton", standardise=True, l2=float(f"{l2:.3g}"), label_smoothing=0.0
        )

    return [base, *(drawn() for _ in range(count - 1))]


def search(
    recipes: Sequence[Recipe], load: Callable[[str, str], Loaders], seed: int, log: TrainingLog = _NO_LOG
) -> list[Result]:
    """Fits every recipe, and returns the results, the best first.

    `load` makes the loaders of a split with the features of a pooling; the seed decides initial
    parameters, order and dropout, alike for all. `log` numbers the trials in the order of `recipes`, from 1.
    """
    together = jax.default_backend() != "cpu"
    results: list[Result] = []
    numbers = {id(recipe): number for number, recipe in enumerate(recipes, 1)}
    with progress_bar("heads") as progress:
        task = progress.add_task("sweep", total=len(recipes))
        for pool, of_pool in itertools.groupby(_groups(recipes, load, together), merging.pooling):
            training, validation = (load(split, pooling.Pool(pool)) for split in ("train", "validation"))
            scalings: dict[str, Scaling] = {}
            for group in of_pool:
                solver = group[0].solver
                if solver not in scalings:
                    scalings[solver] = _scaling(group[0], training)
                scaling = scalings[solver]
                trials = [numbers[id(recipe)] for recipe in group]
                for trial, recipe in zip(trials, group, strict=True):
                    log.begin(trial, described(recipe))

                def row(place: int, epoch: Epoch, trials: list[int] = trials) -> None:
                    log.epoch(trials[place], epoch)

                if solver == "newton":
                    fits = fitting.fit_exactly(group, training, validation, scaling)
                    for place, fit in enumerate(fits):
                        row(place, fit.best)
                else:
                    fits = fitting.fit_many(group, training, validation, scaling, seed, log=row, pool=pool)
                for trial, recipe, fit in zip(trials, group, fits, strict=True):
                    log.end(trial, described(recipe), fit.best)
                results += [
                    Result(recipe, fit, merging.scaling_of(recipe, pool, scaling))
                    for recipe, fit in zip(group, fits, strict=True)
                ]
                progress.advance(task, len(group))
    return sorted(results, key=_loss)


def _loss(result: Result) -> float:
    """The validation log loss; a head that left the finite numbers comes last."""
    loss = result.fit.best.validation_loss
    return loss if math.isfinite(loss) else math.inf


def _groups(recipes: Sequence[Recipe], load: Callable[[str, str], Loaders], together: bool) -> list[list[Recipe]]:
    """What is fitted at once. Several poolings share a shape where their columns together are one chunk, as each alone is."""
    several = together and len({recipe.pool for recipe in recipes if merging.can(recipe)}) > 1
    across = several and all(len(load(split, pooling.Pool.AVG_MAX)) == 1 for split in ("train", "validation"))
    return merging.groups(recipes, together, across)


def settings(trials: Sequence[Trial]) -> dict[str, list[Any]]:
    """A column for each of `COLUMNS`, as it is shown: the widths of the hidden layers as text."""
    columns = {name: [getattr(trial.recipe, name) for trial in trials] for name in COLUMNS}
    return columns | {"hidden": ["x".join(map(str, widths)) or "linear" for widths in columns["hidden"]]}


def table(trials: Sequence[Trial]) -> str:
    """All heads of a sweep as CSV, the best first."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, "validation_log_loss", "validation_accuracy", "best_epoch"])
    for trial, *values in zip(trials, *settings(trials).values(), strict=True):
        best = trial.best
        writer.writerow([*values, f"{best.validation_loss:.5f}", f"{best.validation_accuracy:.4f}", best.epoch])
    return text.getvalue()


def picture(trials: Sequence[Trial]) -> bytes:
    """All heads of a sweep as lines through their settings, coloured by the validation log loss; as PNG."""
    losses = [min(trial.best.validation_loss, sys.float_info.max) for trial in trials]
    return plots.parallel(settings(trials), losses, "validation log loss")
