"""What an evaluation reads from a run directory: how its training went, and which features its head was trained on."""

import csv
from pathlib import Path

from catdog_jax.errors import CatdogError
from catdog_jax.files.buckets import Location, found_from
from catdog_jax.heads.head import FittedHead, digest
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
