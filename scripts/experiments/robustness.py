"""How an exported model bears what the world does to photos, and what it says to pictures of neither class.

    python -m scripts.experiments.robustness --data dogs-vs-cats --originals dogs-vs-cats-original-size

Test photos are spoiled in eleven ways (corruptions.py), from mild to severe, and given to the
exported file in ONNX Runtime: its accuracy with 95 % Wilson intervals, and how many photos it
abstains from (confidence below that of --run's metrics.json, where it is given). Photos that exist
in both folders are also compared at their original size and squashed. Everything goes into one CSV,
a row a corruption and strength, and one plot; a run that was cut off goes on from the rows that are
there. 200 photos make 53 rows of 200: about 6 minutes for an int8 model on 2 fast cores, 25 for
float32."""

import csv
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from rich.table import Table

from catdog_jax.console import console, progress_bar, show
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.files import atomic, sealed
from catdog_jax.heads.calibration import abstention
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.recipe import DecodingRecipe
from catdog_jax.reporting import intervals
from catdog_jax.runtime.default_model import find_model
from catdog_jax.runtime.predictor import Predictor
from scripts.experiments import figures, tables
from scripts.experiments.corruptions import CORRUPTIONS, STRANGERS, corrupt, decoded, is_readable

ROOT = Path(__file__).parents[2]
_SURE = 0.9
_BATCH = 16
_DIGITS = 5  # of figures in the table


@dataclass(frozen=True)
class RobustnessConfig:
    """Evaluate an exported model on spoiled photos and on pictures of neither class."""

    data: str = "demo"
    """The photos, as for `catdog extract`; the test split is taken."""
    model: Path | None = None
    """An exported model (an int8 one is four times as fast); by default the one that `catdog predict` finds."""
    originals: Path | None = None
    """The same photos at their original size, where there are some, in a folder laid out like --data."""
    run: Path | None = None
    """A run directory whose metrics.json holds the confidence to abstain below."""
    photos: int = 200
    """How many test photos, evenly from both classes, and how many pictures of each kind of neither."""
    out: Path = ROOT / "artifacts" / "robustness"
    """Where robustness.csv and robustness.png go."""
    seed: int = 0
    """Decides the noise and the drawn pictures."""


class Row(NamedTuple):
    """A row of robustness.csv; of pictures of neither class the accuracy is empty, and of photos of both `dogs` is."""

    model: str
    pictures: str
    strength: str
    count: int
    accuracy: float | str
    low: float | str
    high: float | str
    log_loss: float | str
    mean_confidence: float
    sure: float
    abstained: float | str
    second_class: float


Pictures = Iterable[np.ndarray]
Job = Callable[[], tuple[Pictures, np.ndarray | None]]  # the pictures, and their labels where they have any


def main(config: RobustnessConfig) -> list[Row]:
    """Judges what is not judged yet, and writes the CSV after every row.

    Raises:
      CatdogError: no usable model or photos.
      UsageError: an option is out of its range.
    """
    if config.photos < 2 or config.seed < 0:
        raise UsageError(f"--photos and --seed: expected 2 and 0 or more, found {config.photos} and {config.seed}.")
    path = find_model(config.model)
    predictor = Predictor(path, batch_size=_BATCH)
    below = _abstain_below(config.run)
    name = atomic.sha256(
        f"{atomic.sha256_of_file(path)} {config.data} {config.originals} {config.seed} {below}".encode()
    )[:12]
    work = jobs(config, predictor.recipe)
    file = config.out / "robustness.csv"
    known = read_table(file.read_text("utf-8", "replace")) if file.is_file() else []
    done = {(row.pictures, row.strength): row for row in known if row.model == name}
    with progress_bar("rows") as progress:
        task = progress.add_task("robustness", total=len(work))
        for (pictures, strength), job in work.items():
            if (pictures, strength) not in done or done[pictures, strength].count > config.photos:
                progress.update(task, description=f"{pictures} {strength}")
                stack, labels = job()
                done[pictures, strength] = judge(predictor, stack, labels, below, (name, pictures, strength))
                atomic.write_bytes(file, tables.as_csv(Row._fields, done.values(), _DIGITS))
            progress.advance(task)
    rows = [done[key] for key in work]
    atomic.write_bytes(file, tables.as_csv(Row._fields, rows, _DIGITS))
    atomic.write_bytes(config.out / "robustness.png", plot(rows))
    show(shown(rows))
    return rows


def _abstain_below(run: Path | None) -> float | None:
    if run is None:
        return None
    path = run / "metrics.json"
    try:
        return float(sealed.read_sealed_json(path, "metrics of a run", older=True)["abstention"]["abstain_below"])
    except (KeyError, TypeError, ValueError):
        raise CatdogError(
            f"{path}: expected 'abstain_below' under 'abstention', found none. "
            "Evaluate the run again; a head of few validation photos has no such confidence."
        ) from None


def jobs(config: RobustnessConfig, recipe: DecodingRecipe) -> dict[tuple[str, str], Job]:
    """Everything there is to judge, decoded by the model's recipe, by the pictures and the strength."""
    records = chosen(sources.load(config.data).split("test"), config.photos)
    found: dict[tuple[str, str], Job] = {("photos", ""): lambda: (_photos(records, recipe), _labels(records))}
    if config.originals is not None:
        found |= _sizes(config.data, config.originals, recipe)
    for name, corruption in CORRUPTIONS.items():
        for place, strength in enumerate(corruption.strengths):
            found[name, f"{strength:g}"] = lambda name=name, strength=strength, place=place: (
                (corrupt(record.read(), name, strength, np.random.default_rng([config.seed, place, i]), recipe)
                 for i, record in enumerate(records)),
                _labels(records),
            )  # fmt: skip
    for name, draw in STRANGERS.items():
        found[name, ""] = lambda draw=draw: (
            (decoded(draw(np.random.default_rng([config.seed, i])), recipe) for i in range(config.photos)),
            None,
        )
    return found


def chosen(records: Sequence[sources.Record], count: int) -> list[sources.Record]:
    """The first readable photos of each class, half of `count` of each."""
    picked: list[sources.Record] = []
    for label in (0, 1):
        readable = (record for record in records if record.label == label and is_readable(record))
        picked += [record for record, _ in zip(readable, range(count // 2 + label * (count % 2)), strict=False)]
    return picked


def _sizes(squashed: str, originals: Path, recipe: DecodingRecipe) -> dict[tuple[str, str], Job]:
    """The photos that exist in both folders, in either form."""
    small, large = ({r.id: r for r in sources.load(str(s)).records if r.split == "test"} for s in (squashed, originals))
    both = sorted(one for one in small.keys() & large.keys() if is_readable(small[one]) and is_readable(large[one]))
    if not both:
        raise CatdogError(
            f"{originals}: expected test photos that {squashed} holds too, found none. Check --originals."
        )
    sides = {"original size": [large[one] for one in both], "the same, squashed": [small[one] for one in both]}
    return {
        (name, ""): lambda records=records: (_photos(records, recipe), _labels(records))
        for name, records in sides.items()
    }


def _photos(records: Sequence[sources.Record], recipe: DecodingRecipe) -> Iterator[np.ndarray]:
    return (decoding.decode(record.read(), recipe) for record in records)


def _labels(records: Sequence[sources.Record]) -> np.ndarray:
    return np.array([record.label for record in records])


def judge(
    predictor: Predictor, pictures: Pictures, labels: np.ndarray | None, below: float | None, key: tuple[str, str, str]
) -> Row:
    """What the model says of some pictures, as a row."""
    source, parts = iter(pictures), []
    while batch := list(itertools.islice(source, _BATCH)):
        parts.append(predictor.probabilities(np.stack(batch))[:, 1].astype(np.float64))
    p, threshold = np.concatenate(parts), float(np.float32(predictor.rule.threshold))
    confidence = np.maximum(p, 1 - p)
    abstained: float | str = "" if below is None else 1 - abstention(np.zeros(len(p)), p, below, threshold)["coverage"]
    second = p >= threshold
    said = (float(confidence.mean()), float((confidence >= _SURE).mean()), abstained, float(second.mean()))
    if labels is None:
        return Row(*key, len(p), "", "", "", "", *said)
    accuracy = float((second == (labels == 1)).mean())
    low, high = (float(end) for end in intervals.wilson(accuracy, len(p)))
    log_loss = float(-np.log(np.clip(np.where(labels == 1, p, 1 - p), 1e-7, 1)).mean())
    return Row(*key, len(p), accuracy, low, high, log_loss, *said)


def read_table(text: str) -> list[Row]:
    """The rows of an earlier run's CSV; none where it is another's."""
    found = list(csv.reader(text.splitlines()))
    try:
        if tuple(found[0]) != Row._fields:
            return []
        return [Row(*row[:3], int(row[3]), *(float(cell) if cell else "" for cell in row[4:])) for row in found[1:]]
    except (ValueError, TypeError, IndexError):
        return []


def plot(rows: Sequence[Row]) -> bytes:
    """A panel a corruption: accuracy against strength, beginning with the photos as they are, as PNG."""
    whole = next(row for row in rows if row.pictures == "photos")
    panels = {}
    for name, corruption in CORRUPTIONS.items():
        of_it = [whole, *(row for row in rows if row.pictures == name)]
        panels[f"{name}: {corruption.unit}"] = [
            (row.strength or "none", float(row.accuracy), float(row.low), float(row.high)) for row in of_it
        ]
    return figures.panels(panels, "accuracy")


def shown(rows: Sequence[Row]) -> Table:
    """The rows as they are printed."""
    result = Table(
        "pictures", "strength", "n", "accuracy", "95 %", "confidence", f"sure ≥ {_SURE:g}", "abstained", "2nd class"
    )
    for row in rows:
        accuracy, interval = "", ""
        if isinstance(row.accuracy, float):
            accuracy, interval = f"{row.accuracy:.1%}", f"{float(row.low):.1%} – {float(row.high):.1%}"
        abstained = row.abstained if isinstance(row.abstained, str) else f"{row.abstained:.0%}"
        said = (f"{row.mean_confidence:.3f}", f"{row.sure:.0%}", abstained, f"{row.second_class:.0%}")
        result.add_row(row.pictures, row.strength, str(row.count), accuracy, interval, *said)
    return result


def run(argv: Sequence[str] | None = None) -> int:
    """The command: 0, or the exit status of the error that it prints."""
    try:
        main(
            tyro.cli(RobustnessConfig, args=argv, prog="python -m scripts.experiments.robustness", description=__doc__)
        )
    except CatdogError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return error.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
