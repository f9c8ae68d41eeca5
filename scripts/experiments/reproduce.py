"""From the photos to everything in artifacts/, in one command that resumes where it was cut off.

    python -m scripts.experiments.reproduce --data dogs-vs-cats

`dogs-vs-cats` holds {train,validation,test}/{cats,dogs}/*.jpg: 15,000, 2,000 and 2,000 photos of
Kaggle's set, named by its numbers. The first step, two views of 19,000 photos through the
convolutions, takes some 50 minutes on 2 fast cores, the sweep 7; the ablation, which computes other
features too, takes longest. Every step leaves its files below --work (runs/reproduce) and is
skipped when they are there; remove a folder to repeat its step. At the end artifacts/ is written
from them, but for the figures that are of a machine rather than of the photos (benchmarks/,
faults.json); nothing there is a photo."""

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from catdog_jax import jax_environment
from catdog_jax.commands import evaluate as evaluate_command
from catdog_jax.commands import export, extract, train
from catdog_jax.config import EvaluateConfig, ExportConfig, ExtractConfig, TrainConfig
from catdog_jax.console import console
from catdog_jax.evaluation import evaluate, run_files
from catdog_jax.evaluation import page as evaluation_page
from catdog_jax.features.cache import FeatureCache
from catdog_jax.features.shards import Rows, write_manifest, write_shard
from catdog_jax.files import atomic, sealed
from catdog_jax.heads import head
from catdog_jax.heads.run_directory import RunDirectory
from catdog_jax.photos import sources
from catdog_jax.reporting import html
from scripts.experiments import ablate, robustness

ROOT = Path(__file__).parents[2]
PUBLISHED_SOURCE = "Kaggle's Dogs vs Cats, 15,000/2,000/2,000 photos"  # of the features; the photos are not published
PUBLISHED_REPORT = "report-without-photos.html"
_FIGURES = ("history.csv", "metrics.json")
Steps = dict[str, tuple[Path, Callable[[], object]]]
"""A step's name -> the file that shows that it is done, and what does it."""


@dataclass(frozen=True)
class ReproduceConfig:
    """Compute everything in artifacts/ from the photos."""

    data: Path
    """The folder of the 19,000 photos."""
    originals: Path | None = None
    """Some of them at their original size, in a folder laid out alike, for the robustness."""
    keras_weights: str | None = None
    """Keras' weights as `catdog port` takes them (keras, or the path of a file), for rows of the ablation."""
    work: Path = ROOT / "runs" / "reproduce"
    """Where the steps leave their files."""
    artifacts: Path = ROOT / "artifacts"
    """Where the results are published."""


def main(config: ReproduceConfig) -> None:
    """Does every step whose result is missing, then publishes."""
    jax_environment.prepare()
    steps = _features(config)
    for preset in ("default", "reference"):
        steps |= _judged(config, preset, "features", preset)
    steps |= _judged(config, "retrained", "published", "default")  # what anybody can do without the photos
    steps |= _exported(config)
    steps |= _studied(config)
    for name, (result, work) in steps.items():
        if result.exists():
            console.print(f"{name}: there already ({result})", style="dim", markup=False, soft_wrap=True)
            continue
        console.rule(f"[bold]{name}[/]", align="left")
        work()
    publish(config)


def _features(config: ReproduceConfig) -> Steps:
    whole, published = config.work / "features", config.work / "published"
    wanted = ExtractConfig(data=str(config.data), out=whole, pool="none", views=("original", "mirror"))
    return {
        "features of 19,000 photos, two views": (whole / "manifest.json", lambda: extract.extract(wanted)),
        "published features": (published / "manifest.json", lambda: average(FeatureCache.open(whole), published)),
    }


def _judged(config: ReproduceConfig, name: str, cache: str, preset: Literal["default", "reference"]) -> Steps:
    run = config.work / name
    return {
        f"{name}: train": (
            run / "head.safetensors",
            lambda: train.train(TrainConfig(features=config.work / cache, out=run, preset=preset)),
        ),
        f"{name}: judge on validation": (
            run / "metrics-validation.json",
            lambda: evaluate_command.evaluate(EvaluateConfig(run=run, split="validation")),
        ),
        f"{name}: judge on test": (run / "metrics.json", lambda: evaluate_command.evaluate(EvaluateConfig(run=run))),
        f"{name}: report without photos": (run / PUBLISHED_REPORT, lambda: report_without_photos(run)),
    }


def _exported(config: ReproduceConfig) -> Steps:
    fp32 = ExportConfig(run=config.work / "default", data=str(config.data))
    int8 = dataclasses.replace(fp32, precision="int8", gate_photos=1000)
    return {
        "default: export": (fp32.run / "model.onnx", lambda: export.export(fp32)),
        "default: export in 8 bits": (fp32.run / "model-int8.onnx", lambda: export.export(int8)),
    }


def _studied(config: ReproduceConfig) -> Steps:
    """The sweep, the ablation and the robustness; the pictures are written last, and the scripts go on where they were."""
    whole, run = config.work / "features", config.work / "default"
    swept = TrainConfig(features=whole, out=config.work / "sweep", sweep=48)
    out = config.work / "ablation"
    ablation = ablate.AblateConfig(whole, config.data, config.keras_weights, work=out, out=out)
    spoiled = robustness.RobustnessConfig(
        str(config.data), run / "model-int8.onnx", config.originals, run, photos=300, out=config.work / "robustness"
    )
    return {
        "sweep of 48 heads": (swept.out / "head.safetensors", lambda: train.train(swept)),
        "ablation": (out / "ablation.png", lambda: ablate.main(ablation)),
        "robustness": (spoiled.out / "robustness.png", lambda: robustness.main(spoiled)),
    }


def report_without_photos(run: Path) -> None:
    """The report of a run on the test split, without thumbnails and without the names of folders."""
    fitted = head.load(run / "head.safetensors")
    cache = FeatureCache.open(run_files.features_of(RunDirectory(run), fitted))
    predicted = evaluate.of_cache(fitted, cache, "test")
    page = evaluation_page.render(
        sealed.read_sealed_json(run / "metrics.json", "metrics file of `catdog evaluate`", older=True),
        predicted.labels,
        predicted.probabilities[:, 0],
        history=run_files.read_history(run / "history.csv"),
        photos_note="Their licence keeps the photos from being shown.",
        configuration={
            "Recipe of the head": fitted.recipe,
            "Fingerprint of the features": fitted.fingerprint.to_json(),
        },
    )
    atomic.write_bytes(run / PUBLISHED_REPORT, html.with_seal(page))


def average(source: FeatureCache, out: Path) -> None:
    """A small cache from a large one: the averages over the cells of the original view, in one shard a split."""
    rows = max(source.rows(split) for split in sources.SPLITS)
    prints = dataclasses.replace(source.fingerprint, pool="avg", views=("original",), shard_size=rows)
    names = [f"{split}-00000-of-00001" for split in sources.SPLITS]
    for split, name in zip(sources.SPLITS, names, strict=True):
        sidecars = [source.sidecar(shard) for shard in source.shard_names(split)]
        merged = Rows(
            ids=source.ids(split),
            labels=source.labels(split).tolist(),
            hashes=[digest for sidecar in sidecars for digest in sidecar["source_sha256"]],
            skipped=source.skipped(split),
            features=[np.asarray(source.load_shard(shard, "avg"))[:, :1] for shard in source.shard_names(split)],
        )
        write_shard(out, name, merged, prints)
    write_manifest(out, PUBLISHED_SOURCE, names, prints)


def publish(config: ReproduceConfig) -> None:
    """Copies what may be published into artifacts/."""
    for preset, names in {
        "default": (*_FIGURES, "config.json", "metrics-validation.json", "head.safetensors", "model-int8.onnx"),
        "reference": (*_FIGURES, "config.json", "metrics-validation.json"),
        "retrained": _FIGURES,
        "sweep": ("sweep.csv", "sweep.png"),
        "ablation": ("ablation.csv", "ablation.png"),
        "robustness": ("robustness.csv", "robustness.png"),
    }.items():
        for name in names:
            _copy(config.work / preset / name, config.artifacts / preset / name)
    for preset in ("default", "reference", "retrained"):
        _copy(config.work / preset / PUBLISHED_REPORT, config.artifacts / preset / "report.html")
    for path in (config.work / "published").iterdir():
        _copy(path, config.artifacts / "features" / path.name)
    size = sum(path.stat().st_size for path in config.artifacts.rglob("*") if path.is_file())
    console.print(f"published in {config.artifacts}: {size / 1e6:.1f} MB in all", markup=False, soft_wrap=True)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


if __name__ == "__main__":
    main(tyro.cli(ReproduceConfig, prog="python -m scripts.experiments.reproduce", description=__doc__))
