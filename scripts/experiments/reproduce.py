"""From the photos to everything in artifacts/, in one command that resumes where it was cut off.

    python -m scripts.experiments.reproduce --data dogs-vs-cats --originals dogs-vs-cats-original-size

`dogs-vs-cats` holds {train,validation,test}/{cats,dogs}/*.jpg: 15,000, 2,000 and 2,000 photos of
Kaggle's set, named by its numbers; the originals are some of them at their original size. The first
step, two views of 20,808 photos through the convolutions, takes half an hour on 2 fast cores; the
ablation, which computes other features too, takes longest. Every step leaves its files below --work
(runs/reproduce) and is skipped when they are there; remove a folder to repeat its step. artifacts/ is
written from them, the models and their figures before the studies, but for the figures that are of a
machine rather than of the photos (benchmarks/, engines.json, faults.json); nothing there is a photo."""

import dataclasses
import itertools
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
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
from scripts.experiments import ablate, coverage, robustness, small, squares, strangers, two_forms

ROOT = Path(__file__).parents[2]
PUBLISHED_SOURCE = "Kaggle's Dogs vs Cats, 15,000/2,000/2,000 photos"  # of the features; the photos are not published
PUBLISHED_REPORT = "report-without-photos.html"
_FINISHED = "finished"
_FIGURES = ("history.csv", "metrics.json", PUBLISHED_REPORT)
MODELS = {  # folders of --work and of artifacts/ -> what is published of them
    "default": (*_FIGURES, "config.json", "metrics-validation.json", "head.safetensors", "model-int8.onnx"),
    "reference": (*_FIGURES, "config.json", "metrics-validation.json"),
    "retrained": _FIGURES,
    "original-size/validation": ("models.json",),
    "original-size/test": ("models.json",),
    "strangers/int8": ("strangers.csv", "strangers.png", "methods.csv", "few.csv"),
    "strangers/fp32": ("strangers.csv",),
    "robustness": ("robustness.csv", "robustness.png"),
}
STUDIES = {
    "precisions": ("models.json",),
    "sweep": ("sweep.csv", "sweep.png"),
    "squares": ("squares.csv", "squares.png"),
    "small": ("small.csv", "small.png", "coverage.csv"),
    "small/avg+max": ("small.csv", "small.png"),
    "small/wrong": ("small.csv", "small.png"),
    "small/lopsided": ("small.csv", "small.png"),
    "ablation": ("ablation.csv", "ablation.png"),
}
Steps = dict[str, tuple[Path, Callable[[], object]]]
"""A step's name -> the file that shows that it is done, and what does it."""


@dataclass(frozen=True)
class ReproduceConfig:
    """Compute everything in artifacts/ from the photos."""

    data: Path
    """The folder of the 19,000 photos."""
    originals: Path
    """Some of them at their original size, in a folder laid out alike."""
    keras_weights: str | None = None
    """Keras' weights as `catdog port` takes them (keras, or the path of a file), for rows of the ablation."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """The type of the features that studies compute anew; bfloat16 is four times as fast where processors have AMX."""
    no_studies: bool = False
    """Leave out what no model depends on: the sweep, the ablation, the squares, the small data sets."""
    work: Path = ROOT / "runs" / "reproduce"
    """Where the steps leave their files."""
    artifacts: Path = ROOT / "artifacts"
    """Where the results are published."""


def main(config: ReproduceConfig) -> None:
    """Does every step whose result is missing, and publishes the models, then the studies."""
    jax_environment.prepare()
    _do(_models(config))
    publish(config, MODELS)
    if not config.no_studies:
        _do(_studies(config))
        publish(config, STUDIES)


def _do(steps: Steps) -> None:
    for name, (result, work) in steps.items():
        if result.exists():
            console.print(f"{name}: there already ({result})", style="dim", markup=False, soft_wrap=True)
            continue
        console.rule(f"[bold]{name}[/]", align="left")
        start = time.monotonic()
        work()
        console.print(f"{name}: {(time.monotonic() - start) / 60:.1f} minutes", style="dim", markup=False)


def _models(config: ReproduceConfig) -> Steps:
    """The features, the heads, the exported files, and how good they are."""
    steps = _features(config)
    for preset in ("default", "reference"):
        steps |= _judged(config, preset, "features", preset)
    steps |= _judged(config, "retrained", "published", "default")  # what anybody can do without the photos
    return steps | _exported(config) | _tried(config)


def _features(config: ReproduceConfig) -> Steps:
    whole, published = config.work / "features", config.work / "published"

    def extracted() -> None:
        photos = two_forms.link(config.data, config.originals, config.work / "photos")
        extract.extract(ExtractConfig(data=str(photos), out=whole, pool="none", views=("original", "mirror")))

    return {
        "features of all photos, two views": (whole / "manifest.json", extracted),
        "published features": (
            published / "manifest.json",
            lambda: average(FeatureCache.open(whole), sources.load(str(config.data)), published),
        ),
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


def _tried(config: ReproduceConfig) -> Steps:
    """The exported files on photos at their original size, on spoiled photos and on strangers."""
    run = config.work / "default"
    files = {"int8": run / "model-int8.onnx", "fp32": run / "model.onnx"}
    steps: Steps = {}
    for split in ("validation", "test"):
        asked = EvaluateConfig(
            model=tuple(files.values()),
            data=str(config.originals),
            split=split,
            out=config.work / "original-size" / split,
        )
        steps[f"original size: {split}"] = (
            _out_of(asked) / "models.json",
            lambda asked=asked: evaluate_command.evaluate(asked),
        )
    for precision, model in files.items():
        met = strangers.StrangersConfig(
            str(config.data),
            model,
            config.originals,
            features=config.work / "published",
            out=config.work / "strangers" / precision,
            no_methods=precision != "int8",  # their tables are published once
        )
        last = "strangers.png" if met.no_methods else "few.csv"  # of the files that it writes
        steps[f"strangers, {precision}"] = (met.out / last, lambda met=met: strangers.main(met))
    spoiled = robustness.RobustnessConfig(
        str(config.data), files["int8"], config.originals, run, photos=300, out=config.work / "robustness"
    )
    return steps | {"robustness": (spoiled.out / "robustness.png", lambda: robustness.main(spoiled))}


def _studies(config: ReproduceConfig) -> Steps:
    """What the choices are worth; the pictures are written last, and the programs go on where they were."""
    whole, published = config.work / "features", config.work / "published"
    swept = TrainConfig(features=whole, out=config.work / "sweep", sweep=48)
    shaped = squares.SquaresConfig(
        originals=config.originals,
        features=published,
        work=config.work / "squares",
        out=config.work / "squares",
        precision=config.precision,
    )
    held = coverage.CoverageConfig(features=published, out=config.work / "small" / "coverage.csv")
    out = config.work / "ablation"
    ablation = ablate.AblateConfig(
        whole, config.data, config.keras_weights, config.work / "photos", config.precision, work=out, out=out
    )
    return _precisions(config) | {
        "sweep of 48 heads": (swept.out / "head.safetensors", lambda: train.train(swept)),
        "squares": (shaped.out / "squares.png", lambda: squares.main(shaped)),
        "few photos": (config.work / "small" / _FINISHED, lambda: _few(config)),
        "coverage": (held.out, lambda: coverage.main(held)),
        "ablation": (out / "ablation.png", lambda: ablate.main(ablation)),
    }


def _precisions(config: ReproduceConfig) -> Steps:
    """Every kind of file that can be exported, on the test photos."""
    run, out = config.work / "default", config.work / "precisions"
    fp16 = ExportConfig(run=run, data=str(config.data), precision="fp16")
    both = ExportConfig(
        run=run,
        data=str(config.data),
        precision="int8",
        gate_photos=1000,
        views=("original", "mirror"),
        out=out / "model-int8-both-views.onnx",
    )
    files = (run / "model.onnx", run / "model-fp16.onnx", run / "model-int8.onnx", out / "model-int8-both-views.onnx")
    asked = EvaluateConfig(model=files, data=str(config.data), out=out)
    return {
        "export in 16 bits": (files[1], lambda: export.export(fp16)),
        "export of both views": (files[3], lambda: export.export(both)),
        "test photos by each file": (out / "models.json", lambda: evaluate_command.evaluate(asked)),
    }


def _few(config: ReproduceConfig) -> None:
    """Heads on few photos: each call adds rows to a table; the slowest heads are drawn less often."""
    out, published = config.work / "small", config.work / "published"
    exact = ("linear", "folds", small.SKLEARN)
    few = small.SmallConfig(published, photos=(20, 50, 100, 200, 500, 2_000), ways=exact, out=out)
    both = dataclasses.replace(few, features=config.work / "features", pool="avg+max", out=out / "avg+max")
    for one in (
        few,
        dataclasses.replace(few, ways=("before",), photos=(20, 50, 100, 200, 500)),
        dataclasses.replace(few, ways=("before", "mlp"), photos=(2_000,), draws=3),
        dataclasses.replace(few, ways=("linear", small.SKLEARN, "before", "mlp"), photos=(15_000,)),
        dataclasses.replace(both, photos=(20, 50, 100, 200, 500), draws=30),
        dataclasses.replace(both, ways=("linear", small.SKLEARN, "mlp"), photos=(1_000, 2_000, 5_000), draws=3),
        dataclasses.replace(few, photos=(20, 50, 100, 200, 500), wrong=0.2, out=out / "wrong"),
        dataclasses.replace(
            few,
            ways=("linear", "unweighted", small.SKLEARN),
            photos=(143, 440),
            draws=20,
            ratio=10.0,
            out=out / "lopsided",
        ),
    ):
        small.main(one)
    atomic.write_bytes(out / _FINISHED, b"")


def _out_of(config: EvaluateConfig) -> Path:
    assert config.out is not None
    return config.out


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


def average(source: FeatureCache, photos: sources.Dataset, out: Path) -> None:
    """A small cache from a large one: the averages over the cells of the squashed photos, in one shard a split.

    Args:
      source: of photos in both forms, see `two_forms`.
      photos: the squashed ones, in the same order.
      out: the folder to write.
    """
    names = [f"{split}-00000-of-00001" for split in sources.SPLITS]
    rows = {split: _squashed(source, split) for split in sources.SPLITS}
    prints = dataclasses.replace(
        source.fingerprint,
        pool="avg",
        views=("original",),
        shard_size=max(len(one.ids) for one in rows.values()),
        inputs=len(photos.records),
        inputs_sha256=photos.inputs_sha256,
    )
    for (split, merged), name in zip(rows.items(), names, strict=True):
        assert merged.ids == [record.id for record in photos.split(split)]
        write_shard(out, name, merged, prints)
    write_manifest(out, PUBLISHED_SOURCE, names, prints)


def _squashed(source: FeatureCache, split: str) -> Rows:
    """The averages of a split's squashed photos."""
    kept = np.array([not two_forms.is_original(photo) for photo in source.ids(split)])
    shards = source.shard_names(split)
    features = np.concatenate([np.asarray(source.load_shard(shard, "avg"))[:, :1] for shard in shards])
    hashes = [digest for shard in shards for digest in source.sidecar(shard)["source_sha256"]]
    return Rows(
        ids=list(itertools.compress(source.ids(split), kept)),
        labels=source.labels(split)[kept].tolist(),
        hashes=list(itertools.compress(hashes, kept)),
        skipped=source.skipped(split),
        features=[features[kept]],
    )


def publish(config: ReproduceConfig, files: Mapping[str, Sequence[str]]) -> None:
    """Copies what may be published into artifacts/, folder by folder."""
    for folder, names in files.items():
        for name in names:
            source = config.work / folder / name
            target = config.artifacts / folder / ("report.html" if name == PUBLISHED_REPORT else name)
            if name == "models.json":
                _copy_comparison(source, target, (config.data, config.originals))
            else:
                _copy(source, target)
    for path in (config.work / "published").iterdir():
        _copy(path, config.artifacts / "features" / path.name)
    size = sum(path.stat().st_size for path in config.artifacts.rglob("*") if path.is_file())
    console.print(f"published in {config.artifacts}: {size / 1e6:.1f} MB in all", markup=False, soft_wrap=True)


def _copy_comparison(source: Path, target: Path, photos: Sequence[Path]) -> None:
    """Copies what `catdog evaluate --model` wrote, in which folders of photos are named without their place."""
    compared = sealed.read_sealed_json(source, "comparison of `catdog evaluate --model`")
    for folder in sorted(photos, key=lambda one: -len(str(one))):  # one may begin like the other
        compared["photos"] = compared["photos"].replace(str(folder), folder.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    sealed.write_sealed_json(target, compared)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


if __name__ == "__main__":
    main(tyro.cli(ReproduceConfig, prog="python -m scripts.experiments.reproduce", description=__doc__))
