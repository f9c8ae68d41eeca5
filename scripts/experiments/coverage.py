"""Does the interval of a cross-validated accuracy hold? It is compared with the kept head's accuracy on many other photos.

    python -m scripts.experiments.coverage

Photos are drawn from the training photos of artifacts/features, half of each class, many times. Each
draw is cross-validated as `catdog train --folds 5` does it, and the head that is kept, which was
trained on all of the draw, is asked about other training photos that it has not seen. Wilson's
interval of the cross-validated accuracy counts the photos of the draw, each once: whether it covers
the other accuracy is counted in the table. Heads of the folds have seen a fifth fewer photos than the
one that is kept, so the estimate leans to the careful side. Five minutes of CPU time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from rich.table import Table

from catdog_jax import jax_environment
from catdog_jax.config import THRESHOLD
from catdog_jax.console import progress_bar, show
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import atomic
from catdog_jax.heads import training
from catdog_jax.reporting import intervals
from scripts.experiments import tables


@dataclass(frozen=True, kw_only=True)
class CoverageConfig:
    """How often the interval of a cross-validated accuracy holds."""

    features: Path = Path("artifacts/features")
    """A feature cache with averaged features."""
    out: Path = Path("artifacts/small/coverage.csv")
    """The table."""
    photos: tuple[int, ...] = (30, 60, 150)
    """How many photos a draw has."""
    draws: int = 400
    """How often they are drawn."""
    others: int = 1800
    """How many other photos the head that is kept is asked about."""
    seed: int = 0
    """Decides the draws."""


class Row(NamedTuple):
    """Draws of so many photos: means over the draws, and in how many the interval covers the kept head's accuracy."""

    photos: int
    draws: int
    cross_validated: float
    kept: float
    width: float
    covered: int
    too_high: int
    too_low: int


def main(config: CoverageConfig) -> list[Row]:
    """Draws, cross-validates and compares; writes the table."""
    jax_environment.prepare()
    jax_environment.require_devices()
    cache = FeatureCache.open(config.features)
    x, labels = np.asarray(cache.load("train", "avg"))[:, 0], cache.labels("train").astype(np.int64)
    found = []
    with progress_bar("draws") as progress:
        for photos in config.photos:
            task = progress.add_task(f"{photos} photos", total=config.draws)
            draws = []
            for draw in range(config.draws):
                rng = np.random.default_rng([config.seed, photos, draw])
                draws.append(_draw(x, labels, photos, config.others, rng, cache))
                progress.advance(task)
            found.append(_row(photos, np.array(draws)))
    rounded = [[round(cell, 4) for cell in row] for row in found]
    atomic.write_bytes(config.out, tables.as_csv(Row._fields, rounded))
    show(_table(found))
    return found


def _draw(
    x: np.ndarray, labels: np.ndarray, photos: int, others: int, rng: np.random.Generator, cache: FeatureCache
) -> tuple[float, float, float, float]:
    """The cross-validated accuracy of a draw, both ends of its interval, and the kept head's accuracy on other photos."""
    of_class = [rng.permutation(np.flatnonzero(labels == label)) for label in (0, 1)]
    drawn = np.concatenate([rows[: photos // 2] for rows in of_class])
    rest = np.concatenate([rows[photos // 2 :][: others // 2] for rows in of_class])
    head = training.train((x[drawn], labels[drawn]), folds=5, pool="avg", fingerprint=cache.fingerprint)
    judged = head.out_of_fold
    assert judged is not None
    right = int(((judged.probabilities >= THRESHOLD) == judged.labels).sum())
    kept = float(((head(x[rest]) >= THRESHOLD) == labels[rest]).mean())
    return right / photos, *intervals.of_share(right, photos), kept


def _row(photos: int, draws: np.ndarray) -> Row:
    estimate, low, high, kept = draws.T
    above, below = kept > high, kept < low
    inside = int((~above & ~below).sum())
    means = (float(values.mean()) for values in (estimate, kept, high - low))
    return Row(photos, len(draws), *means, inside, int(below.sum()), int(above.sum()))


def _table(found: list[Row]) -> Table:
    table = Table("photos", "cross-validated", "kept head, on others", "width", "interval covers", title="coverage")
    for row in found:
        shares = (f"{100 * share:.2f} %" for share in (row.cross_validated, row.kept, row.width))
        table.add_row(str(row.photos), *shares, f"{row.covered} of {row.draws}")
    return table


if __name__ == "__main__":
    main(tyro.cli(CoverageConfig))
