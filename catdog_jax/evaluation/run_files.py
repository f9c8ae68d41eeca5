"""What an evaluation reads from a run directory: how its training went, its cross-validation, and which features it had."""

import csv
import io
from pathlib import Path

import numpy as np

from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic
from catdog_jax.files.buckets import Location, found_from
from catdog_jax.heads.head import FittedHead, OutOfFold, digest
from catdog_jax.heads.run_directory import RunDirectory

_HISTORY = ("epoch", "train_loss", "validation_loss", "validation_accuracy")


def read_history(path: Path) -> dict[str, list[float]] | None:
    """The columns of history.csv, or None where there is no such file.

    Raises:
      CatdogError: it is not a table of numbers.
    """
    if not path.exists():
        return None
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name]) for row in rows] for name in _HISTORY} if rows else None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CatdogError(
            f"{path}: expected columns of numbers, {', '.join(_HISTORY)}, found: {error!r}. Run `catdog train` again."
        ) from None


def read_out_of_fold(run: RunDirectory, head: FittedHead) -> OutOfFold | None:
    """The cross-validation of the head of a run, or None of a head that was trained without.

    Raises:
      CatdogError: the settings are of another head, or the table is missing or altered.
    """
    if not head.recipe.get("folds"):
        return None
    sha256 = run.read_settings(digest(head.params)).get("files", {}).get(run.out_of_fold.name)
    try:
        content = run.out_of_fold.read_bytes()
        if atomic.sha256(content) != sha256:
            raise ValueError("other bytes than `catdog train` wrote")
        rows = list(csv.DictReader(io.StringIO(content.decode(errors="surrogateescape"), newline="")))
        labels = np.array([head.classes.index(row["label"]) for row in rows], np.int64)
        repeats = range(1, int(head.recipe["repeats"]) + 1)
        folds = np.array([[int(row[f"fold_{repeat}"]) for row in rows] for repeat in repeats], np.int64)
        return OutOfFold(
            [row["id"] for row in rows], labels, folds, np.array([float(row["probability"]) for row in rows])
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CatdogError(
            f"{run.out_of_fold}: expected the cross-validation of the head beside it, found: {error}. Run `catdog train` again."
        ) from None


def features_of(run: RunDirectory, head: FittedHead) -> Location:
    """The feature cache that the head of a run was trained on.

    Raises:
      CatdogError: the run does not say so, or its settings are of another head.
    """
    recorded = run.read_settings(digest(head.params)).get("features")
    if not isinstance(recorded, str):
        raise CatdogError(
            f"{run.settings}: expected the path of the feature cache under 'features', found {recorded!r}. "
            f"Give --features."
        )
    return found_from(run.path, recorded)
