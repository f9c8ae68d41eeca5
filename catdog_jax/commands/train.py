"""`catdog train`: cached features to a head."""

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any

from rich.table import Table

from catdog_jax import __version__, settings_file
from catdog_jax.config import Recipe, TrainConfig
from catdog_jax.console import say, show, warn
from catdog_jax.errors import CatdogError
from catdog_jax.files import buckets
from catdog_jax.heads import cross_validation, head, search, training
from catdog_jax.heads.head import Epoch, FittedHead
from catdog_jax.heads.run_directory import SWEEP, RunDirectory

_NOT_OF_TRAINING = ("features", "out")
_SHOWN = 8  # rows of a sweep on stdout
_COLUMNS = ("", "pool", "hidden", "drop", "L2", "rate", "decay", "smooth", "log loss", "accuracy")


def train(config: TrainConfig) -> FittedHead:
    """Trains a head on a feature cache; writes head.safetensors, history.csv and config.json into the run directory.

    What described an earlier, different head in the same directory is removed, see
    `RunDirectory.make_way`. Raises as `training.train`.
    """
    fitted = training.train(config.features, **options(config))
    for note in fitted.notes:
        say(note)
    write(config, fitted)
    if fitted.sweep:
        show(_sweep(fitted))
    best, recipe = fitted.best, fitted.recipe
    assert best is not None  # it was trained here
    if fitted.out_of_fold is not None:
        done = f"{cross_validation.said(len(fitted.out_of_fold.ids), recipe['folds'], recipe['repeats'])}. Log loss"
        of_what = ""
    else:
        done = f"{_course(fitted)}: validation log loss"
        of_what = f", of {recipe['calibration_photos']:,} validation photos"
    show(
        f"{done} {best.validation_loss:.4f}, accuracy {best.validation_accuracy:.2%}; temperature "
        f"{recipe['temperature']:.3f}{of_what}"
    )
    if "threshold" in recipe:
        chosen = f"chosen by {recipe['decide_by'].replace('_', ' ')}" if "decide_by" in recipe else "as given"
        show(f"decision: {fitted.classes[1]} from a probability of {fitted.threshold:.3g} on, {chosen}")
    if fitted.strangeness is not None:
        show(
            f"neither: photos of a strangeness above {recipe['strange_above']:.3f}, chosen on {recipe['strange_photos']:,} "
            f"photos that it was not fitted to; at least {recipe['strange_accepts']:.1%} of photos of {fitted.classes[0]} and "
            f"{fitted.classes[1]} like these stay below"
        )
    warn(fitted.warnings)
    return fitted


def _course(fitted: FittedHead) -> str:
    """How the head came about, in words: what was trained, what was kept, and why it ended there."""
    if fitted.exact:
        return "fitted exactly, at the penalty's one minimum"
    count, best = len(fitted.history), fitted.best
    assert best is not None
    kept = f"trained {count} epoch{'' if count == 1 else 's'}; kept epoch {best.epoch}"
    if best.epoch == count:
        return f"{kept}, the last, which was the best"
    if count < fitted.recipe["epochs"]:
        return f"{kept}, after which {count - best.epoch} brought nothing better"
    return f"{kept}; the {count - best.epoch} after it brought nothing better"


def options(config: TrainConfig) -> dict[str, Any]:
    """The settings as the arguments of `training.train`."""
    names = (field.name for field in dataclasses.fields(config))
    return {name: getattr(config, name) for name in names if name not in _NOT_OF_TRAINING}


def write(config: TrainConfig, fitted: FittedHead) -> None:
    """Writes a head and what belongs to it; killed anywhere in between, `RunDirectory.read_settings` and `verify` say so."""
    run = RunDirectory(config.out)
    recorded = [field.name for field in dataclasses.fields(Recipe)]
    settings = {
        "version": __version__,
        "features": buckets.seen_from(config.out, config.features),
        "seed": config.seed,
        "preset": config.preset,
        "recipe": {name: fitted.recipe[name] for name in recorded if name in fitted.recipe},
        "head_sha256": head.digest(fitted.params),
        "settings": settings_file.recorded(dataclasses.replace(config, log_dir=None), config.out),
    }
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\n").writerows([Epoch._fields, *fitted.history])
    files = {run.history.name: table.getvalue().encode()}
    if fitted.sweep:
        files |= zip(SWEEP, (search.table(fitted.sweep).encode(), search.picture(fitted.sweep)), strict=True)
    if fitted.out_of_fold is not None:
        settings |= {"folds": fitted.recipe["folds"], "repeats": fitted.recipe["repeats"]}
        files[run.out_of_fold.name] = out_of_fold(fitted)
    if stale := run.make_way(_is_there(run.head, fitted), files):
        say(f"{run.path}: removed what described the head before: {', '.join(stale)}")
    fitted.save(run.head)
    run.write_settings(settings, files)


def out_of_fold(fitted: FittedHead) -> bytes:
    """A cross-validation as CSV, a row a photo: its id, its class, its fold in each repeat, and the probability of class 1."""
    judged = fitted.out_of_fold
    assert judged is not None
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["id", "label", *(f"fold_{repeat + 1}" for repeat in range(len(judged.folds))), "probability"])
    for name, label, folds, probability in zip(
        judged.ids, judged.labels.tolist(), judged.folds.T.tolist(), judged.probabilities.tolist(), strict=True
    ):
        writer.writerow([name, fitted.classes[label], *folds, repr(probability)])
    return table.getvalue().encode(errors="surrogateescape")


def _is_there(path: Path, fitted: FittedHead) -> bool:
    """Whether a run directory holds this very head, which decides alike."""
    try:
        there = head.load(path)
        alike = head.digest(there.params) == head.digest(fitted.params) and there.threshold == fitted.threshold
        return alike and there.recipe.get("strange_above") == fitted.recipe.get("strange_above")
    except CatdogError:
        return False


def _sweep(fitted: FittedHead) -> Table:
    """The best heads of a sweep."""
    table = Table(*_COLUMNS, title="the best heads")
    for place, row in enumerate(list(csv.reader(search.table(fitted.sweep[:_SHOWN]).splitlines()))[1:], 1):
        table.add_row(str(place), *row[:-1])
    return table
