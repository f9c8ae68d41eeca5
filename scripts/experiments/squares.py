"""What each way to make photos square is worth on photos as people have them, for the same time a photo.

    python -m scripts.experiments.squares --originals dogs-vs-cats-original-size

Linear heads are trained on a feature cache of squashed photos (`artifacts/features`) and judged on some
of the same photos at their original size. Those are divided into folds: the heads that judge a photo
have not seen it in either form. Photos of the test split are left out, since this chooses. Features of
the originals go to --work and are not computed twice; a way takes some two minutes on 2 fast cores.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from rich.table import Table

from catdog_jax import jax_environment
from catdog_jax.config import EXACT_L2
from catdog_jax.console import console, show
from catdog_jax.errors import CatdogError
from catdog_jax.features import extraction
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import atomic
from catdog_jax.heads import convex
from catdog_jax.photos import sources
from catdog_jax.photos.dataset import Dataset
from catdog_jax.photos.recipe import RESIZES
from catdog_jax.reporting import intervals
from scripts.experiments import figures

ROOT = Path(__file__).parents[2]
SPLITS = ("train", "validation")


@dataclass(frozen=True, kw_only=True)
class SquaresConfig:
    """Judge the ways to make photos square."""

    originals: Path
    """Photos at their original size, PATH/{train,validation}/CLASS/*, that the features hold too, by the same names."""
    features: Path = ROOT / "artifacts" / "features"
    """A feature cache of averages of squashed photos."""
    work: Path = ROOT / "runs" / "squares"
    """Where the features of the originals go."""
    out: Path = ROOT / "artifacts" / "squares"
    """Where squares.csv and squares.png go."""
    folds: int = 4
    """How many parts the originals are divided into."""
    seed: int = 0
    """Decides the parts."""


class Row(NamedTuple):
    """How heads of squashed photos judge the originals that became square in a way."""

    resize: str
    photos: int
    mistakes: int
    accuracy: float
    low: float
    high: float
    log_loss: float
    of_second: int


class Photos(NamedTuple):
    """Features float32 [N, 512], labels [N] of 0 and 1, and the photos' ids."""

    x: np.ndarray
    y: np.ndarray
    ids: list[str]


def main(config: SquaresConfig) -> list[Row]:
    """Judges each way, and writes the table and the plot.

    Raises:
      CatdogError: no usable photos, features or weights; or the photos are not those of the features.
    """
    jax_environment.prepare()
    squashed = loaded(FeatureCache.open(config.features))
    rows = []
    for resize in RESIZES:
        dataset = sources.load(str(config.originals))
        chosen = Dataset(dataset.source, dataset.classes, tuple(r for r in dataset.records if r.split in SPLITS))
        cache = extraction.extract(chosen, config.work / resize, resize=resize)
        assert cache is not None
        originals = loaded(cache)
        rows.append(judged(resize, originals, logits(squashed, originals, config.folds, config.seed)))
    atomic.write_bytes(config.out / "squares.csv", table(rows).encode())
    points = [(row.resize, row.accuracy, row.low, row.high) for row in rows]
    atomic.write_bytes(config.out / "squares.png", figures.dots(points, "accuracy on photos at their original size"))
    show(shown(rows))
    return rows


def loaded(cache: FeatureCache) -> Photos:
    """The averages of the photos themselves, of all splits that may choose."""
    parts = [
        (cache.load(split, "avg")[:, 0].astype(np.float32), cache.labels(split), cache.ids(split)) for split in SPLITS
    ]
    x, y, ids = zip(*parts, strict=True)
    return Photos(np.concatenate(x), np.concatenate(y), [name for part in ids for name in part])


def logits(squashed: Photos, originals: Photos, folds: int, seed: int) -> np.ndarray:
    """What heads of squashed photos say of the originals, float64 [N]: each by a head that has not seen it.

    Raises:
      CatdogError: an original is not among the squashed photos.
    """
    places = {name: place for place, name in enumerate(squashed.ids)}
    if missing := [name for name in originals.ids if name not in places]:
        raise CatdogError(f"{missing[0]}: expected a photo that --features holds too, found none. Check --originals.")
    same = np.array([places[name] for name in originals.ids])
    parts = np.random.default_rng(seed).permutation(len(originals.ids)) % folds
    seen = np.ones((folds, len(squashed.ids)))
    seen[parts, same] = 0
    centre = squashed.x.mean(axis=0)
    length = np.sqrt(((squashed.x - centre) ** 2).sum(axis=1).mean())
    heads = convex.fit((squashed.x - centre) / length, squashed.y, seen, EXACT_L2 / seen.sum(axis=1))
    fitted = heads["output"]
    said = ((originals.x - centre) / length) @ fitted["kernel"][..., 0].T + fitted["bias"].T  # [N, folds]
    return said[np.arange(len(parts)), parts]


def judged(resize: str, photos: Photos, said: np.ndarray) -> Row:
    """A row of the table."""
    signed = np.where(photos.y == 1, said, -said)
    wrong, n = int((signed <= 0).sum()), len(signed)
    low, high = intervals.of_share(n - wrong, n)
    loss = float(np.logaddexp(0, -signed).mean())
    return Row(resize, n, wrong, 1 - wrong / n, low, high, loss, int((signed[photos.y == 1] <= 0).sum()))


def table(rows: list[Row]) -> str:
    """The rows as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows([f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return text.getvalue()


def shown(rows: list[Row]) -> Table:
    """The rows as they are printed."""
    result = Table("resize", "photos", "mistakes", "of the second class", "accuracy", "95 %", "log loss")
    for row in rows:
        interval = f"{row.low:.2%} – {row.high:.2%}"
        result.add_row(row.resize, str(row.photos), str(row.mistakes), str(row.of_second), f"{row.accuracy:.2%}", interval,
                       f"{row.log_loss:.4f}")  # fmt: skip
    return result


def run() -> int:
    """The command: 0, or the exit status of the error that it prints."""
    try:
        main(tyro.cli(SquaresConfig, prog="python -m scripts.experiments.squares", description=__doc__))
    except CatdogError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return error.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
