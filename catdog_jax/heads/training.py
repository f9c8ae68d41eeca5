"""Features -> a trained head: `train`. What happens in between is in search.py, fitting.py and steps.py."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from catdog_jax import jax_environment
from catdog_jax.backbone.pooling import Pool
from catdog_jax.config import PRESETS, Recipe, TrainConfig
from catdog_jax.errors import UsageError
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files.buckets import Location, location
from catdog_jax.heads import calibration, fitting, rows, search
from catdog_jax.heads.head import FittedHead, Trial, fold_standardisation
from catdog_jax.heads.rows import Pair, Rows
from catdog_jax.photos.fingerprint import Fingerprint
from catdog_jax.ranges import check, check_arguments


def train(
    features: FeatureCache | Location | str | Pair,
    *,
    preset: str = "default",
    head: Literal["mlp", "linear"] | None = None,
    pool: str | None = None,
    hidden: tuple[int, ...] | None = None,
    dropout: float | None = None,
    learning_rate: float | None = None,
    decay_rate: float | None = None,
    l2: float | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    patience: int | None = None,
    seed: int = 0,
    sweep: int | None = None,
    resident_gib: float = 4.0,
    validation: Pair | None = None,
    classes: Sequence[str] | None = None,
    fingerprint: Fingerprint | None = None,
    decide_by: str = "half",
    threshold: float | None = None,
    costs: tuple[float, float] | None = None,
) -> FittedHead:
    """Trains a head on features, and calibrates it on the validation rows.

    Args:
      features: a feature cache, or its path; or a pair of arrays, x [N, columns] of any features and
        labels [N], 0 or 1.
      preset: "default", the best found on validation, or "reference", the classic recipe (7x7x512
        flattened, L2 0.05, decaying Adam). The arguments that follow take the place of its values.
      head: "mlp" or "linear".
      pool: what the head sees of the features. Of arrays: what their columns are, where they are
        features of this package.
      hidden: widths of the hidden layers.
      dropout: share of a layer's inputs that is zeroed while training.
      learning_rate: Adam's step size at the start.
      decay_rate: what the step size is multiplied by every epoch, exponentially.
      l2: penalty l2 * sum(kernel ** 2) added to the loss.
      batch_size: rows a step.
      epochs: how many at most.
      patience: epochs without a better validation loss after which training stops.
      seed: decides initial weights, shuffling and dropout: the same seed gives the same bytes.
      sweep: how many heads to try, the preset and random others; the one with the lowest validation
        log loss is kept.
      resident_gib: features up to this size are kept on the device; larger ones are streamed.
      validation: of arrays, the pair to validate on; by default a tenth of the rows of each class.
      classes: of arrays, the names of the two classes; by default "0" and "1".
      fingerprint: of arrays that hold features of this package, that of their cache; such a head can
        be exported.
      decide_by: what the decision threshold is chosen by on the validation rows: "half" keeps 0.5,
        "accuracy", "balanced_accuracy", "f1" (of the second class) or "costs".
      threshold: the threshold itself, in place of a choice.
      costs: for "costs", what a mistake on a photo of the first class costs, and one of the second.

    Raises:
      CatdogError: the cache is unfinished, damaged, or does not hold the pooling; the loss does not
        stay finite.
      UsageError: an argument is out of its range.
      TypeError: `features` is none of these.

    Example:
      >>> import catdog_jax as cd
      >>> x = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
      >>> fitted = cd.train((x, x[:, 0] > 0), head="linear", epochs=5, learning_rate=0.1)
      >>> [epoch.epoch for epoch in fitted.history]
      [1, 2, 3, 4, 5]
      >>> fitted(x[:3]).shape
      (3,)
    """
    check_arguments(TrainConfig, preset=preset, head=head, pool=pool, seed=seed, sweep=sweep, resident_gib=resident_gib)
    given = {
        **{"pool": pool, "hidden": hidden, "dropout": dropout, "learning_rate": learning_rate},
        **{"decay_rate": decay_rate, "l2": l2, "batch_size": batch_size, "epochs": epochs, "patience": patience},
    }
    wanted = resolve(preset, head, given)
    decision: dict[str, Any] = {"decide_by": decide_by, "threshold": threshold, "costs": costs}
    calibration.check_decision(**decision)
    jax_environment.require_devices()
    if isinstance(features, FeatureCache | Location | str):
        only_of_arrays = {"validation": validation, "classes": classes, "fingerprint": fingerprint}
        if unused := [name for name, value in only_of_arrays.items() if value is not None]:
            raise UsageError(f"{unused[0]}: expected none beside a feature cache, which has its own. Leave it out.")
        cache = features if isinstance(features, FeatureCache) else FeatureCache.open(location(str(features)))
        taken = rows.of_cache(cache, resident_gib)
    else:
        taken = rows.of_arrays(
            features,
            validation,
            pool=None if pool is None else Pool(pool),
            classes=classes,
            fingerprint=fingerprint,
            seed=seed,
            resident_gib=resident_gib,
        )
    return _train(wanted, taken, pool, seed, sweep, decision)


def resolve(preset: str, head: str | None, given: Mapping[str, Any]) -> Recipe:
    """The preset with the fields of `Recipe` that are given, and not None, in place of its own.

    Raises:
      UsageError: a value is out of its range.
    """
    values = {name: value for name, value in given.items() if value is not None}
    if head == "linear":
        if values.get("hidden"):
            raise UsageError(
                f"--hidden: expected none with --head linear, found {values['hidden']}. Leave one of the two out."
            )
        values["hidden"] = ()
    recipe = dataclasses.replace(PRESETS[preset], **values)
    check(recipe)
    return recipe


def _train(
    wanted: Recipe, taken: Rows, pool: str | None, seed: int, sweep: int | None, decision: Mapping[str, Any]
) -> FittedHead:
    notes = []
    if pool is None and not taken.gives(Pool(wanted.pool)):
        if taken.stored is not None:
            notes.append(
                f"{taken.name} holds {taken.stored} features: training on these, not on {wanted.pool} as the preset has it"
            )
        wanted = dataclasses.replace(wanted, pool=(taken.stored or Pool.NONE).value)
    if sweep is None:
        results = [search.fit_one(wanted, taken.load, seed)]
    else:
        pools = [other for other in search.POOLS if taken.gives(Pool(other))] or [wanted.pool]
        drawn = search.draw(wanted, pools if pool is None else [wanted.pool], sweep, seed)
        results = search.search(drawn, taken.load, seed)
    best = results[0]
    params, recipe = best.fit.params, best.recipe
    logits, labels = fitting.logits(params, taken.load("validation", Pool(recipe.pool)), best.scaling)
    told = calibration.calibrate(logits, labels, **decision)
    params = calibration.fold_temperature(params, told.temperature)
    if recipe.standardise:
        params = fold_standardisation(params, best.scaling.mean[0], best.scaling.deviation[0])
    described = dataclasses.asdict(recipe) | told.recipe()
    if taken.fingerprint == Fingerprint():
        described["features"] = "arrays that are not known to be features of catdog_jax"
    trials = () if sweep is None else tuple(Trial(result.recipe, result.fit.best) for result in results)
    return FittedHead(
        pool=None if taken.stored is None else Pool(recipe.pool),
        params=params,
        classes=taken.classes,
        fingerprint=taken.fingerprint,
        recipe=described,
        history=best.fit.history,
        sweep=trials,
        notes=tuple(notes),
    )
