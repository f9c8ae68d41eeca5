"""What each way to make photos square is worth on photos as people have them: shapes, sizes and views, by time a photo.

    python -m scripts.experiments.squares --originals dogs-vs-cats-original-size

Linear heads judge photos at their original size, of which some are in a feature cache of squashed
photos too (`artifacts/features`, 224 pixels). The originals are divided into folds: the heads that
judge a photo have not seen it in either form. Each way is judged by heads of the squashed photos
alone, of the originals alone, and of both, where the features are of one size; heads of another size
have only the originals to learn from. Photos of the test split are left out, since this chooses.
Features of the originals go to --work and are not computed twice.
"""

import dataclasses
import functools
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import tyro
from rich.table import Table

from catdog_jax import jax_environment
from catdog_jax.backbone import weights
from catdog_jax.config import EXACT_L2
from catdog_jax.console import console, show
from catdog_jax.errors import CatdogError
from catdog_jax.features import extraction
from catdog_jax.features.cache import FeatureCache
from catdog_jax.features.extractor import Extractor
from catdog_jax.files import atomic
from catdog_jax.heads import convex
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.dataset import Dataset, Record
from catdog_jax.photos.recipe import SIZE
from catdog_jax.reporting import intervals
from scripts.experiments import figures, tables

ROOT = Path(__file__).parents[2]
SPLITS = ("train", "validation")
ENDS = ("start", "end")
BATCH, TURNS = 16, 3  # of `_ms`


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
    precision: Literal["float32", "bfloat16"] = "float32"
    """The type that their convolutions compute in; bfloat16 is faster where processors have AMX. Times are of float32."""
    folds: int = 4
    """How many parts the originals are divided into."""
    seed: int = 0
    """Decides the parts."""


class Way(NamedTuple):
    """How originals become features: each view gives a logit, and their mean judges.

    Attributes:
      resize: as of `catdog extract --resize`.
      size: pixels a side; of several the features stand side by side.
      views: "original"; "mirror"; or "start" and "end", the squares at both ends of the longer side, as
        "original" of a crop is that of the middle.
    """

    resize: str
    size: tuple[int, ...] = (SIZE,)
    views: tuple[str, ...] = ("original",)


WAYS = (
    Way("halfway"),
    Way("squash"),
    Way("crop"),
    Way("letterbox"),
    Way("halfway", views=("original", "mirror")),
    Way("crop", views=("start", "original", "end")),
    Way("halfway", (256,)),
    Way("halfway", (288,)),
    Way("halfway", (320,)),
    Way("halfway", (224, 320)),
)


class Row(NamedTuple):
    """How heads of some photos judge the originals that became square in a way; `ms` is the time of the network a photo."""

    resize: str
    size: str
    views: str
    ms: float
    trained_on: str
    photos: int
    mistakes: int
    accuracy: float
    low: float
    high: float
    log_loss: float
    of_second: int


class Photos(NamedTuple):
    """Features float32 [N, columns], labels [N] of 0 and 1, and the photos' ids, the same in all forms of a photo."""

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
    dataset = sources.load(str(config.originals))
    chosen = dataclasses.replace(dataset, records=tuple(r for r in dataset.records if r.split in SPLITS))
    known = set(squashed.ids)
    if missing := [record.id for record in chosen.records if record.id not in known]:
        raise CatdogError(f"{missing[0]}: expected a photo that --features holds too, found none. Check --originals.")
    rows = []
    for way in WAYS:
        views = [_features(chosen, way, view, config) for view in way.views]
        ms = sum(_ms(size) for size in way.size) * len(way.views)
        for name, trained in _trainings(squashed, views[way.views.index("original")], way).items():
            said = logits(trained, views, config.folds, config.seed)
            named = Row(way.resize, "+".join(map(str, way.size)), "+".join(way.views), ms, name, 0, 0, 0, 0, 0, 0, 0)
            rows.append(judged(named, views[0].y, said))
    atomic.write_bytes(config.out / "squares.csv", tables.as_csv(Row._fields, rows, digits=4))
    points = [(_label(row), row.accuracy, row.low, row.high) for row in rows]
    atomic.write_bytes(config.out / "squares.png", figures.dots(points, "accuracy on photos at their original size"))
    show(shown(rows))
    return rows


def loaded(cache: FeatureCache, view: int = 0) -> Photos:
    """The averages of a view, of all splits that may choose."""
    parts = [
        (cache.load(split, "avg")[:, view].astype(np.float32), cache.labels(split), cache.ids(split))
        for split in SPLITS
    ]
    x, y, ids = zip(*parts, strict=True)
    return Photos(np.concatenate(x), np.concatenate(y), [name for part in ids for name in part])


def _features(originals: Dataset, way: Way, view: str, config: SquaresConfig) -> Photos:
    """The features of one view of the originals, of all sizes side by side."""
    parts = []
    for size in way.size:
        photos, out, place = originals, config.work / f"{way.resize}-{size}", 0
        if view in ENDS:
            photos = dataclasses.replace(
                originals, records=tuple(dataclasses.replace(r, read=partial(end, r, view)) for r in originals.records)
            )
            out = config.work / f"{view}-{size}"
        elif way.resize == "halfway":
            place = ("original", "mirror").index(view)
        views = ("original", "mirror") if way.resize == "halfway" and size == SIZE else ("original",)
        cache = extraction.extract(photos, out, resize=way.resize, size=size, views=views, precision=config.precision)
        assert cache is not None
        parts.append(loaded(cache, place))
    return parts[0]._replace(x=np.concatenate([part.x for part in parts], axis=1))


def end(record: Record, which: str) -> bytes:
    """The square at the start or the end of the longer side of a photo, as a PNG file."""
    photo = decoding.load(record.read()).image
    side = min(photo.size)
    left, top = (0, 0) if which == "start" else (photo.width - side, photo.height - side)
    file = io.BytesIO()
    photo.crop((left, top, left + side, top + side)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _trainings(squashed: Photos, originals: Photos, way: Way) -> dict[str, Photos]:
    """What heads learn from, by its name: the originals, and the squashed photos where those are of the same size."""
    found = {"originals": originals}
    if way.size == (SIZE,):
        both = Photos(
            np.concatenate([squashed.x, originals.x]),
            np.concatenate([squashed.y, originals.y]),
            squashed.ids + originals.ids,
        )
        found = {"squashed": squashed, **found, "both": both}
    return found


@functools.cache
def _ms(size: int) -> float:
    """Milliseconds of the network a photo, the fastest of some batches."""
    extractor = Extractor(weights.load("auto"), size=size, precision="float32")
    photos = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), np.uint8)
    times = []
    for _ in range(TURNS + 1):
        start = time.perf_counter()
        np.asarray(extractor(photos))
        times.append(time.perf_counter() - start)
    return 1000 * min(times[1:]) / BATCH


def logits(trained: Photos, views: Sequence[Photos], folds: int, seed: int) -> np.ndarray:
    """What heads say of the originals, the mean of their views, float64 [N]: each by a head that has not seen it.

    Args:
      trained: what heads learn from.
      views: the originals, in each view.
      folds: how many parts the originals are divided into.
      seed: decides the parts.
    """
    parts = np.random.default_rng(seed).permutation(len(views[0].ids)) % folds
    part_of = dict(zip(views[0].ids, parts, strict=True))
    own = np.array([part_of.get(name, -1) for name in trained.ids])
    seen = (own != np.arange(folds)[:, None]).astype(np.float64)
    centre = trained.x.mean(axis=0)
    length = np.sqrt(((trained.x - centre) ** 2).sum(axis=1).mean())
    heads = convex.fit((trained.x - centre) / length, trained.y, seen, EXACT_L2 / seen.sum(axis=1))
    fitted = heads["output"]
    said = [((view.x - centre) / length) @ fitted["kernel"][..., 0].T + fitted["bias"].T for view in views]
    return np.mean(said, axis=0)[np.arange(len(parts)), parts]


def judged(named: Row, labels: np.ndarray, said: np.ndarray) -> Row:
    """A row of the table: the names of one, and the figures of logits [N] beside the labels [N]."""
    signed = np.where(labels == 1, said, -said)
    wrong, n = int((signed <= 0).sum()), len(signed)
    low, high = intervals.of_share(n - wrong, n)
    loss = float(np.logaddexp(0, -signed).mean())
    return Row(*named[:5], n, wrong, 1 - wrong / n, low, high, loss, int((signed[labels == 1] <= 0).sum()))


def _label(row: Row) -> str:
    views = {"original": ""}.get(row.views, f", {row.views.replace('+', ', ')}")
    return f"{row.resize} {row.size}{views}: of {row.trained_on}"


def shown(rows: list[Row]) -> Table:
    """The rows as they are printed."""
    result = Table("", "ms a photo", "trained on", "mistakes", "of the second class", "accuracy", "95 %", "log loss")
    for row in rows:
        interval = f"{row.low:.2%} – {row.high:.2%}"
        result.add_row(f"{row.resize} {row.size}, {row.views}", f"{row.ms:.0f}", row.trained_on, str(row.mistakes),
                       str(row.of_second), f"{row.accuracy:.2%}", interval, f"{row.log_loss:.4f}")  # fmt: skip
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
