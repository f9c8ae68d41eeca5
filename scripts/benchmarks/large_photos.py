"""Measures photos as phones take them, decoded by version 1 of the recipe and by version 2.

    python -m scripts.benchmarks.large_photos --data ../shared/dogs-vs-cats-original-size --photos 24

Photos are enlarged to each size and saved as JPEG. Every photo is decoded by both versions in turns, so
that both meet the same moods of the machine, and so go the photos through `predict`, `audit` and
`extract`. What the two versions make of the probabilities is measured on the same photos. Results go into
--out, as JSON and as a picture."""

import dataclasses
import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from matplotlib.figure import Figure
from PIL import Image
from rich.table import Table

from catdog_jax.config import cores
from catdog_jax.console import progress_bar, quieted, show
from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic, sealed
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.prefetch import map_ahead
from catdog_jax.photos.recipe import VERSIONS, DecodingRecipe
from catdog_jax.ranges import AtLeast, check
from catdog_jax.reporting import plots
from catdog_jax.reporting.html import PALETTE
from catdog_jax.runtime.default_model import find_model
from catdog_jax.runtime.predictor import Predictor
from scripts.benchmarks.benchmark import processor

ROOT = Path(__file__).parents[2]
SIZES = ((4032, 3024), (1600, 1200), (500, 375))
QUALITY = 90  # of the JPEGs
_BATCH = 8


@dataclass(frozen=True)
class LargePhotosConfig:
    """Measure large photos, decoded by both versions of the recipe."""

    data: str = "demo"
    """Photos, as `catdog extract` takes them; those of validation and test are enlarged."""
    photos: Annotated[int, AtLeast(2)] = 24
    """How many of them, half of each class."""
    stages: Annotated[int, AtLeast(0)] = 8
    """How many of them go through predict, audit and extract; 0 for none of the stages."""
    model: Path | None = None
    """The exported model; by default the one that `catdog predict` finds."""
    rounds: Annotated[int, AtLeast(1)] = 3
    """Turns of each version; the median counts."""
    out: Path = ROOT / "artifacts" / "benchmarks"
    """Where large-photos.json and large-photos.png go."""


def main() -> None:
    """Measures, prints and writes."""
    config = tyro.cli(LargePhotosConfig, prog="python -m scripts.benchmarks.large_photos", description=__doc__)
    check(config)
    figures = measured(config)
    show(table(figures["sizes"]))
    sealed.write_json(config.out / "large-photos.json", figures)
    atomic.write_bytes(config.out / "large-photos.png", picture(figures["sizes"]))


def measured(config: LargePhotosConfig) -> dict[str, Any]:
    """Everything that is measured.

    Raises:
      CatdogError: there are no photos, or the model cannot be used.
    """
    model = Predictor(find_model(config.model), batch_size=_BATCH)
    records = chosen(config)
    rows = []
    for size in SIZES:
        # In memory, because what is measured is decoding and not the disk
        contents = list(map_ahead(lambda record, size=size: enlarged(record, size), records, None, cores()))
        row = {"width": size[0], "height": size[1], "megabytes": sum(map(len, contents)) / len(contents) / 1e6}
        row |= {"decode": decode_times(contents, model.recipe, config.rounds)}
        row |= {"probabilities": probabilities(model, contents, records)}
        if config.stages:
            row |= {"stages": stages(contents[: config.stages], records, model, config.rounds)}
        rows.append(row)
    return {
        "processor": processor(),
        "cores": cores(),
        "photos": len(records),
        "in_stages": config.stages,
        "rounds": config.rounds,
        "quality": QUALITY,
        "model": model.metadata.get("head_sha256"),
        "sizes": rows,
    }


def chosen(config: LargePhotosConfig) -> list[sources.Record]:
    """The photos, evenly from those of validation and test, the two classes in turns."""
    dataset = sources.load(config.data, ())
    unseen = [record for split in ("validation", "test") for record in dataset.split(split)]
    half = config.photos // 2
    by_class = [[record for record in unseen if record.label == label] for label in (0, 1)]
    if min(map(len, by_class)) < half:
        raise CatdogError(f"{config.data}: expected {half} photos of each class, found {min(map(len, by_class))}.")
    even = [group[:: max(1, len(group) // half)][:half] for group in by_class]
    return list(itertools.chain.from_iterable(zip(*even, strict=True)))


def enlarged(record: sources.Record, size: tuple[int, int]) -> bytes:
    """A photo as JPEG of a size; one that stands upright lies on its side, as cameras store it, and says so."""
    image = decoding.load(record.read()).image
    exif = Image.Exif()
    if image.height > image.width:
        image, exif[0x0112] = image.transpose(Image.Transpose.ROTATE_90), 6
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=QUALITY, exif=exif)
    return buffer.getvalue()


def versions(recipe: DecodingRecipe) -> dict[int, DecodingRecipe]:
    """The recipe in each version."""
    return {version: dataclasses.replace(recipe, version=version) for version in VERSIONS}


def in_turns(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median of the seconds that each takes, one after the other in every round, in alternating order."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds):
        for name, call in [*work.items()][:: -1 if number % 2 else 1]:
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def decode_times(contents: Sequence[bytes], recipe: DecodingRecipe, rounds: int) -> dict[str, float]:
    """Milliseconds a photo on one core by each version, and how many times as fast version 2 is."""
    taken: dict[int, list[float]] = {version: [] for version in VERSIONS}
    with progress_bar("photos") as progress:
        for content in progress.track(contents, description="decode"):
            work = {
                str(version): lambda content=content, one=one: decoding.decode(content, one)
                for version, one in versions(recipe).items()
            }
            work[str(VERSIONS[0])]()  # whoever is first finds the memory cold
            for version, seconds in in_turns(work, rounds).items():
                taken[int(version)].append(1e3 * seconds)
    first, second = (statistics.median(taken[version]) for version in VERSIONS)
    return {"version_1_ms": first, "version_2_ms": second, "ratio": first / second}


def probabilities(model: Predictor, contents: Sequence[bytes], records: Sequence[sources.Record]) -> dict[str, Any]:
    """What the model says of photos decoded by each version: accuracies, how far apart, and how many other decisions."""
    rows = {}
    for version, recipe in versions(model.recipe).items():
        decoded = map_ahead(lambda content, recipe=recipe: decoding.decode(content, recipe), contents, None, _BATCH)
        rows[version] = np.concatenate([model.probabilities(np.stack(batch)) for batch in _batches(decoded)])[:, 1]
    labels = np.array([record.label for record in records])
    decided = {version: row >= np.float32(model.rule.threshold) for version, row in rows.items()}
    apart = np.abs(rows[1] - rows[2])
    return {
        **{f"version_{version}_right": int((decided[version] == labels).sum()) for version in VERSIONS},
        "other_decisions": int((decided[1] != decided[2]).sum()),
        "mean_difference": float(apart.mean()),
        "largest_difference": float(apart.max()),
    }


def _batches(photos: Iterator[np.ndarray]) -> Iterator[list[np.ndarray]]:
    while batch := list(itertools.islice(photos, _BATCH)):
        yield batch


def stages(
    contents: Sequence[bytes], records: Sequence[sources.Record], model: Predictor, rounds: int
) -> dict[str, dict[str, float]]:
    """Photos a second of each stage by each version, and the ratio; `audit` has one way, the same for both."""
    from catdog_jax.auditing.audit import audit
    from catdog_jax.features import batches, extraction
    from catdog_jax.features.extractor import Extractor

    with tempfile.TemporaryDirectory() as folder:
        for i, (content, record) in enumerate(zip(contents, records, strict=False)):
            name = Path(folder, "train", ("a", "b")[record.label], f"{i}.jpg")
            atomic.write_bytes(name, content)
        paths = sorted(Path(folder).rglob("*.jpg"))
        dataset = sources.load(folder, ())
        extractor = Extractor(size=model.recipe.size)
        plan = extraction.plan(dataset, len(contents))

        def predict(recipe: DecodingRecipe) -> None:
            model.recipe = recipe
            list(model.stream(paths, heatmaps=False))

        def extract(recipe: DecodingRecipe) -> None:
            list(batches.compute_shards(plan, extractor, recipe, None, lambda _: None))

        found = {}
        for name, stage in (("predict", predict), ("extract", extract)):
            stage(model.recipe)  # compiled, and the files in memory
            work = {str(v): lambda one=one, stage=stage: stage(one) for v, one in versions(model.recipe).items()}
            seconds = in_turns(work, rounds)
            rates = [len(paths) / seconds[str(version)] for version in VERSIONS]
            found[name] = {"version_1": rates[0], "version_2": rates[1], "ratio": rates[1] / rates[0]}
        with quieted():
            seconds = in_turns({"audit": lambda: audit(dataset)}, rounds)
        found["audit"] = {"photos_per_second": len(paths) / seconds["audit"]}
        return found


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The figures as they are printed."""
    shown = Table("JPEG", "decode, 1", "2", "ratio", "other decisions", "largest difference")
    for row in rows:
        times, said = row["decode"], row["probabilities"]
        decode = (f"{times['version_1_ms']:.0f} ms", f"{times['version_2_ms']:.0f} ms", f"{times['ratio']:.1f}")
        shown.add_row(
            f"{row['width']} x {row['height']}",
            *decode,
            str(said["other_decisions"]),
            f"{said['largest_difference']:.4f}",
        )
        for name, rates in row.get("stages", {}).items():
            cells = [f"{rate:.1f}" for rate in rates.values()]
            shown.add_row(f"  {name}, photos/s", *cells, *[""] * (5 - len(cells)))
    return shown


def picture(rows: Sequence[dict[str, Any]]) -> bytes:
    """How many times as fast version 2 is, a group of bars a size, as PNG."""
    names = ["decode", *(name for name in rows[0].get("stages", {}) if name != "audit")]
    figure = Figure(figsize=(7.5, 3.4), dpi=110, layout="constrained", facecolor=PALETTE["paper"][0])
    axes = figure.subplots()
    plots.style(axes)
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        ratios = [(row if name == "decode" else row["stages"])[name]["ratio"] for row in rows]
        places = np.arange(len(rows)) + (i - (len(names) - 1) / 2) * width
        bars = axes.bar(places, ratios, 0.9 * width, label=name, color=PALETTE["accent"][0], alpha=1 - 0.3 * i)
        axes.bar_label(bars, fmt="%.1f", fontsize=8, color=PALETTE["ink"][0])
    axes.axhline(1, color=PALETTE["ink"][0], linewidth=0.8)
    axes.set_xticks(range(len(rows)), [f"{row['width']} × {row['height']}" for row in rows])
    axes.set_ylabel("version 2 / version 1, times as fast", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
