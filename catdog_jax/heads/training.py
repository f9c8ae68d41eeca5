"""Features -> a trained head: `train`. What happens in between is in search.py, fitting.py and steps.py."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from catdog_jax import jax_environment
from catdog_jax.backbone.pooling import Pool
from catdog_jax.config import EXACT_L2, FEW, PRESETS, Recipe, TrainConfig
from catdog_jax.errors import UsageError
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files.buckets import Location, location
from catdog_jax.heads import calibration, convex, cross_validation, fitting, rows, search, strangeness
from catdog_jax.heads.cross_validation import Photos
from catdog_jax.heads.head import Epoch, FittedHead, Trial, best_epoch, fold_standardisation
from catdog_jax.heads.rows import Pair, Rows
from catdog_jax.heads.training_log import TrainingLog
from catdog_jax.photos.fingerprint import Fingerprint
from catdog_jax.ranges import check, check_arguments

NOTABLE = 0.01  # share of its validation log loss that a head still improved by, from which it is said


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
    solver: Literal["adam", "newton"] | None = None,
    class_weight: Literal["none", "balanced"] | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    patience: int | None = None,
    seed: int = 0,
    sweep: int | None = None,
    folds: int | None = None,
    repeats: int = 3,
    resident_gib: float = 4.0,
    validation: Pair | None = None,
    groups: Sequence[Any] | None = None,
    classes: Sequence[str] | None = None,
    fingerprint: Fingerprint | None = None,
    decide_by: str = "half",
    threshold: float | None = None,
    costs: tuple[float, float] | None = None,
    log_dir: Path | str | None = None,
) -> FittedHead:
    """Trains a head on features, and calibrates it on the validation rows.

    Args:
      features: a feature cache, or its path; or a pair of arrays, x [N, columns] of any features and
        labels [N], 0 or 1.
      preset: "default", the best found on validation: a linear head below 5,000 training photos, an
        MLP from there on; or "reference", the classic recipe (7x7x512 flattened, L2 0.05, decaying
        Adam). The arguments that follow take the place of its values.
      head: "mlp" or "linear".
      pool: what the head sees of the features. Of arrays: what their columns are, where they are
        features of this package.
      hidden: widths of the hidden layers.
      dropout: share of a layer's inputs that is zeroed while training.
      learning_rate: Adam's step size at the start.
      decay_rate: what the step size is multiplied by every epoch, exponentially.
      l2: penalty l2 * sum(kernel ** 2) added to the loss. Of an exact fit by default 0.08 / rows; the
        kernel is that of features which `rows.common_scaling` has made comparable.
      solver: "newton" finds the exact minimum, for linear heads: no rates, batches, epochs or
        dropout; "adam" for the others. By default newton for a linear head of the default preset,
        unless settings of Adam are given.
      class_weight: "balanced": both classes weigh alike, in the losses too, however many rows each
        has; "none": rows do. By default "balanced" for an exact fit.
      batch_size: rows a step.
      epochs: how many at most; one is a pass over the rows, or several where they are few.
      patience: epochs without a better validation loss after which training stops.
      seed: decides initial weights, shuffling and dropout: the same seed gives the same bytes.
      sweep: how many heads to try, the preset and random others; the one with the lowest validation
        log loss is kept.
      folds: cross-validate a linear head: every photo of train and validation is judged by heads that
        were trained on the other folds of this many, and the head that is kept is trained on all of
        them; see `FittedHead.out_of_fold`. None or 0 for none.
      repeats: how often the photos are divided into folds anew; their predictions are averaged.
      resident_gib: features up to this size are kept on the device; larger ones are streamed.
      validation: of arrays, the pair to validate on; by default a tenth of the rows of each class.
      groups: of arrays, and for folds: what each row belongs to, or None; rows of one group stay in
        one fold. A feature cache has its own, and near copies are found in its features.
      classes: of arrays, the names of the two classes; by default "0" and "1".
      fingerprint: of arrays that hold features of this package, that of their cache; such a head can
        be exported.
      decide_by: what the decision threshold is chosen by on the validation rows: "half" keeps 0.5,
        "accuracy", "balanced_accuracy", "f1" (of the second class) or "costs".
      threshold: the threshold itself, in place of a choice.
      costs: for "costs", what a mistake on a photo of the first class costs, and one of the second.
      log_dir: a folder for the course of the training as it goes on: log.jsonl, and TensorBoard's event
        files. By default nothing is written.

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
    check_arguments(TrainConfig, folds=folds, repeats=repeats)
    given = {
        **{"pool": pool, "hidden": hidden, "dropout": dropout, "learning_rate": learning_rate},
        **{"decay_rate": decay_rate, "l2": l2, "batch_size": batch_size, "epochs": epochs, "patience": patience},
        **{"solver": solver, "class_weight": class_weight},
    }
    kind: str | None = head
    if folds:
        kind, given = for_folds(preset, head, given, sweep)
    elif groups is not None:
        raise UsageError(
            "--groups: expected folds to keep them together in, found none. Give folds too, or leave it out."
        )
    resolve(preset, kind, given)  # wrong usage is told before anything is read
    decision: dict[str, Any] = {"decide_by": decide_by, "threshold": threshold, "costs": costs}
    calibration.check_decision(**decision)
    log = TrainingLog(log_dir)
    jax_environment.require_devices()
    if isinstance(features, FeatureCache | Location | str):
        only_of_arrays = {"validation": validation, "groups": groups, "classes": classes, "fingerprint": fingerprint}
        if unused := [name for name, value in only_of_arrays.items() if value is not None]:
            raise UsageError(f"{unused[0]}: expected none beside a feature cache, which has its own. Leave it out.")
        cache = features if isinstance(features, FeatureCache) else FeatureCache.open(location(str(features)))
        taken = rows.of_cache(cache, resident_gib)
        if not folds and not cache.rows("validation"):
            raise UsageError(
                f"--folds: expected some for {cache.path}, which has no validation photos, found none. Give --folds "
                f"{cross_validation.FOLDS}, or extract without --undivided."
            )
        if folds:
            wanted, notes = _of_stored(resolve(preset, kind, given), taken, pool)
            photos = cross_validation.of_cache(cache, wanted.pool)
    else:
        if folds and validation is not None:
            raise UsageError(
                "--validation: expected none with folds, of which each validates the others. Leave it out."
            )
        taken = rows.of_arrays(
            features,
            validation,
            pool=None if pool is None else Pool(pool),
            classes=classes,
            fingerprint=fingerprint,
            seed=seed,
            resident_gib=resident_gib,
        )
        if folds:
            wanted, notes = _of_stored(resolve(preset, kind, given), taken, pool)
            photos = cross_validation.of_arrays(features, groups, taken.stored, taken.classes)
    if folds:
        count, views = photos.x.shape[:2]
        wanted = dataclasses.replace(resolve(preset, kind, given, count * views, views), pool=wanted.pool)
        return _cross_validated(wanted, taken, photos, l2, folds, repeats, seed, notes, decision, log)
    wanted, notes = _chosen(preset, head, given, taken)
    return _train(wanted, notes, taken, pool, seed, sweep, decision, log)


def for_folds(preset: str, head: str | None, given: Mapping[str, Any], sweep: int | None) -> tuple[str, dict[str, Any]]:
    """The kind of head and the settings of `resolve` with which folds are fitted: a linear head, exactly.

    Raises:
      UsageError: something else is asked for.
    """
    asked = {
        "--sweep": sweep,
        "--head mlp": head == "mlp",
        "--hidden": given.get("hidden"),
        "--solver adam": given.get("solver") == "adam",
        "--preset reference": preset == "reference" and head is None and given.get("hidden") is None,
    }
    if found := [name for name, value in asked.items() if value]:
        raise UsageError(
            f"--folds: expected a linear head, which is fitted exactly, found {found[0]}: other heads need validation photos "
            "to know when to stop. Leave one of the two out."
        )
    return "linear", {**given, "solver": "newton"}


def _chosen(preset: str, head: str | None, given: Mapping[str, Any], taken: Rows) -> tuple[Recipe, list[str]]:
    """The recipe for the rows that there are, and sentences on what the preset would have had otherwise."""
    wanted, notes = _of_stored(
        resolve(preset, head, given, taken.photos * taken.views, taken.views), taken, given["pool"]
    )
    if wanted.solver == "newton" and not taken.exact(wanted.pool):
        notes.append(
            f"{taken.name}: a linear head cannot be fitted exactly to rows that are not kept in memory (--resident-gib), or to "
            f"more than {convex.MAX_SIDE:,} rows of more than {convex.MAX_SIDE:,} columns: it is trained by Adam"
        )
        by_adam = resolve(preset, "linear", {**given, "hidden": None, "solver": "adam"})
        wanted = dataclasses.replace(by_adam, pool=wanted.pool)
    elif wanted.solver == "newton" and head is None and given["solver"] is None and given["hidden"] is None:
        notes.append(
            f"{taken.photos:,} training {'rows' if taken.stored is None else 'photos'}: a linear head, fitted exactly; from "
            f"{FEW:,} on an MLP is trained (--head mlp)"
        )
    return wanted, notes


def resolve(preset: str, head: str | None, given: Mapping[str, Any], rows: int | None = None, views: int = 1) -> Recipe:
    """The recipe for so many training rows: the preset with the fields of `Recipe` that are given in place of its own.

    With fewer than `config.FEW` photos the default preset is a linear head, fitted exactly, and so
    is its linear head always; settings of Adam, such as epochs, ask for Adam.

    Args:
      preset: its name.
      head: "mlp", "linear", or None.
      given: fields of `Recipe`; those that are None are left to the preset.
      rows: how many there are to train on; None where that is not known yet, to check the settings.
      views: rows a photo.

    Raises:
      UsageError: a value is out of its range, or two settings contradict each other.

    Example:
      >>> few = resolve("default", None, {}, rows=200)
      >>> few.hidden, few.solver, few.l2
      ((), 'newton', 0.0004)
    """
    values = {name: value for name, value in given.items() if value is not None}
    of_adam = [name for name in search.OF_ADAM if name in values]
    solver = values.get("solver")
    if head == "linear" or (solver == "newton" and head is None):
        if values.get("hidden"):
            asked = "--head linear" if head == "linear" else "--solver newton, which fits linear heads"
            raise UsageError(
                f"--hidden: expected none with {asked}, found {values['hidden']}. Leave one of the two out."
            )
        values["hidden"] = ()
    if solver == "newton":
        if head == "mlp":
            raise UsageError("--solver newton: expected a linear head, found --head mlp. Leave one of the two out.")
        if of_adam:
            option = f"--{of_adam[0].replace('_', '-')}"
            raise UsageError(
                f"{option}: expected none with --solver newton, which is exact, found {values[of_adam[0]]}. Leave it out, or "
                "give --solver adam."
            )
        if values.get("l2") == 0:
            raise UsageError(
                "--l2: expected more than 0 with --solver newton, found 0. Leave it out, or give --solver adam."
            )
    undecided = head is None and "hidden" not in values
    few = undecided and rows is not None and rows // views < FEW
    if preset == "default" and solver is None and not of_adam and values.get("l2") != 0:
        solver = "newton" if few or values.get("hidden", PRESETS[preset].hidden) == () else None
    if solver == "newton":
        values |= {"hidden": (), "dropout": 0.0, "standardise": True, "solver": solver}
        # At 10 photos to 1 it makes some half of the mistakes, at that ratio too: artifacts/small/lopsided
        values.setdefault("class_weight", "balanced")
        values.setdefault("l2", PRESETS[preset].l2 if rows is None else EXACT_L2 / rows)
    recipe = dataclasses.replace(PRESETS[preset], **values)
    check(recipe)
    return recipe


def _of_stored(wanted: Recipe, taken: Rows, pool: str | None) -> tuple[Recipe, list[str]]:
    """The recipe on features that are there, unless others are asked for, and a note where the preset has others."""
    if pool is not None or taken.gives(Pool(wanted.pool)):
        return wanted, []
    note = f"{taken.name} holds {taken.stored} features: training on these, not on {wanted.pool} as the preset has it"
    return dataclasses.replace(wanted, pool=(taken.stored or Pool.NONE).value), [note] if taken.stored else []


def _cross_validated(
    wanted: Recipe,
    taken: Rows,
    photos: Photos,
    l2: float | None,
    folds: int,
    repeats: int,
    seed: int,
    notes: Sequence[str],
    decision: Mapping[str, Any],
    log: TrainingLog,
) -> FittedHead:
    """Fits the heads of all folds, which calibrate, and the head that is kept, on all photos."""
    settings = search.described(wanted) | {"folds": folds, "repeats": repeats}
    log.start(None, settings, seed)
    log.begin(1, settings)
    result = cross_validation.fit(photos, l2, wanted.class_weight == "balanced", folds, repeats, seed)
    weights = fitting.class_weights(wanted, [lambda: rows.Chunk(photos.x, photos.labels)])
    told = calibration.calibrate(result.logits, photos.labels, **decision, class_weights=weights, exact=True)
    params = calibration.fold_temperature(result.params, told.temperature)
    params = fold_standardisation(params, result.scaling.mean[0], result.scaling.deviation[0])
    described = search.described(wanted) | told.recipe() | {"folds": folds, "repeats": repeats}
    strange, kept, note = strangeness.NOTHING
    if taken.stored is not None:
        x = photos.x.reshape(-1, photos.x.shape[2])
        looked = strangeness.seen(x, Pool(wanted.pool)).reshape(*photos.x.shape[:2], -1)
        strange, kept, note = strangeness.of_folds(looked, result.folds[0])
    if taken.fingerprint == Fingerprint():
        described["features"] = "arrays that are not known to be features of catdog_jax"
    right = float(((result.logits >= 0) == (photos.labels == 1)).mean())
    judged = Epoch(1, 0.0, result.train_loss, result.loss, right)
    log.epoch(1, judged)
    log.end(1, settings, judged)
    return FittedHead(
        pool=None if taken.stored is None else Pool(wanted.pool),
        params=params,
        classes=taken.classes,
        fingerprint=taken.fingerprint,
        recipe=described | kept,
        strangeness=strange,
        history=(judged,),
        notes=(*notes, *filter(None, [note])),
        warnings=tuple(calibration.warnings(described)),
        out_of_fold=cross_validation.out_of_fold(photos, result, told.temperature),
    )


def _train(
    wanted: Recipe,
    notes: list[str],
    taken: Rows,
    pool: str | None,
    seed: int,
    sweep: int | None,
    decision: Mapping[str, Any],
    log: TrainingLog,
) -> FittedHead:
    log.start(sweep, search.described(wanted), seed)
    if sweep is None:
        results = [search.fit_one(wanted, taken.load, seed, log)]
    else:
        pools = [other for other in search.POOLS if taken.gives(Pool(other))] or [wanted.pool]
        pools = pools if pool is None else [wanted.pool]
        drawn = search.draw(wanted, pools, sweep, seed, taken.exact, taken.photos * taken.views)
        results = search.search(drawn, taken.load, seed, log)
    best = results[0]
    params, recipe = best.fit.params, best.recipe
    validation = taken.load("validation", Pool(recipe.pool))
    logits, labels = fitting.logits(params, validation, best.scaling)
    weights = fitting.class_weights(recipe, validation)
    told = calibration.calibrate(logits, labels, **decision, class_weights=weights, exact=recipe.solver == "newton")
    params = calibration.fold_temperature(params, told.temperature)
    if best.scaling is not rows.UNSCALED:
        params = fold_standardisation(params, best.scaling.mean[0], best.scaling.deviation[0])
    described = search.described(recipe) | told.recipe()
    strange, kept, note = _strangeness(taken, recipe.pool)
    if taken.fingerprint == Fingerprint():
        described["features"] = "arrays that are not known to be features of catdog_jax"
    trials = () if sweep is None else tuple(Trial(result.recipe, result.fit.best) for result in results)
    return FittedHead(
        pool=None if taken.stored is None else Pool(recipe.pool),
        params=params,
        classes=taken.classes,
        fingerprint=taken.fingerprint,
        recipe=described | kept,
        strangeness=strange,
        history=best.fit.history,
        sweep=trials,
        notes=(*notes, *filter(None, [note])),
        warnings=(*stopping_warnings(recipe, best.fit.history), *calibration.warnings(described)),
    )


def _strangeness(taken: Rows, pool: str) -> strangeness.Fitted:
    """What tells strangers to a head of this pooling; nothing where the columns are no features of this package."""
    if taken.stored is None:
        return strangeness.NOTHING
    wanted = strangeness.seen_of(Pool(pool))
    stored = wanted if taken.gives(wanted) else Pool(pool)  # of arrays, there is their own pooling alone
    train, validation = ((strangeness.seen(load().x, stored) for load in taken.load(split, stored))
                         for split in ("train", "validation"))  # fmt: skip
    return strangeness.of_splits(train, validation, taken.photos)


def stopping_warnings(recipe: Recipe, history: Sequence[Epoch]) -> list[str]:
    """That a training ended while it still improved, in a sentence; else none.

    It did where the last epoch allowed is the best, and the validation log loss has fallen by more
    than `NOTABLE` of itself in the last `patience` epochs.
    """
    if recipe.solver == "newton" or len(history) < recipe.epochs or best_epoch(history) is not history[-1]:
        return []
    earlier = [epoch.validation_loss for epoch in history[: -recipe.patience]] or [history[0].validation_loss]
    lost, last = min(earlier), history[-1].validation_loss
    if len(history) < 2 or not lost - last > NOTABLE * lost:
        return []
    return [
        f"the validation log loss was still falling at the last epoch, {len(history)}, by {1 - last / lost:.0%} in the last "
        f"{min(recipe.patience, len(history) - 1)}: the head is not fully trained. Give more --epochs, or a higher "
        "--learning-rate."
    ]
