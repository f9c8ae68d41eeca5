"""From the photos to everything in artifacts/, in one command that resumes where it was cut off.

    python scripts/reproduce.py --data dogs-vs-cats

`dogs-vs-cats` holds {train,validation,test}/{cats,dogs}/*.jpg: 15,000, 2,000 and 2,000 photos of Kaggle's set, named by its
numbers. The slow step is the first one, two views of 19,000 photos through the convolutions: minutes on a GPU, 50 minutes on
2 fast cores. Every step leaves its files below --work (runs/reproduce) and is skipped when they are there; remove a folder to
repeat its step. At the end artifacts/ is written from them; nothing there is a photo.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from catdog_jax import data, evaluate, export, features, train
from catdog_jax.cache import FeatureCache, Rows, write_manifest, write_shard
from catdog_jax.cli import prepare_jax
from catdog_jax.config import EvaluateConfig, ExportConfig, ExtractConfig, TrainConfig
from catdog_jax.console import console

ROOT = Path(__file__).parents[1]
PUBLISHED_SOURCE = "Kaggle's Dogs vs Cats, 15,000/2,000/2,000 photos"  # of the features; the photos are not published


@dataclass(frozen=True)
class ReproduceConfig:
    """Compute everything in artifacts/ from the photos."""

    data: Path
    """The folder of the 19,000 photos."""
    work: Path = ROOT / "runs" / "reproduce"
    """Where the steps leave their files."""
    artifacts: Path = ROOT / "artifacts"
    """Where the results are published."""


def main(config: ReproduceConfig) -> None:
    """Does every step whose result is missing, then publishes."""
    prepare_jax()
    steps: dict[str, tuple[Path, Callable[[], object]]] = {
        "features of 19,000 photos, two views": (
            config.work / "features" / "manifest.json",
            lambda: features.extract(
                ExtractConfig(str(config.data), config.work / "features", pool="none", views="original,mirror")
            ),
        ),
        "published features": (
            config.work / "published" / "manifest.json",
            lambda: average(FeatureCache.open(config.work / "features"), config.work / "published"),
        ),
    }
    for preset in ("default", "reference"):
        run = config.work / preset
        steps |= {
            f"{preset}: train": (run / "head.safetensors", lambda run=run, preset=preset: _train(config, run, preset)),
            f"{preset}: judge on validation": (
                run / "metrics-validation.json",
                lambda run=run: evaluate.evaluate(EvaluateConfig(run, "validation")),
            ),
            f"{preset}: judge on test": (run / "metrics.json", lambda run=run: evaluate.evaluate(EvaluateConfig(run))),
        }
    steps |= _retrained(config)
    model = config.work / "default" / "model.onnx"
    steps["default: export"] = (model, lambda: export.export(ExportConfig(model.parent, data=str(config.data))))
    steps["default: export in 8 bits"] = (
        model.with_name("model-int8.onnx"),
        lambda: export.export(ExportConfig(model.parent, data=str(config.data), precision="int8", gate_photos=1000)),
    )
    for name, (result, work) in steps.items():
        if result.exists():
            console.print(f"{name}: there already ({result})", style="dim", markup=False, soft_wrap=True)
            continue
        console.rule(f"[bold]{name}[/]", align="left")
        work()
    publish(config)


def _retrained(config: ReproduceConfig) -> dict[str, tuple[Path, Callable[[], object]]]:
    """A head that anybody can train without the photos, from the published features alone; a test holds it to its figure."""
    run, published = config.work / "retrained", config.work / "published"
    return {
        "retrained: train on the published features": (
            run / "head.safetensors",
            lambda: train.train(TrainConfig(published, run)),
        ),
        "retrained: judge on test": (run / "metrics.json", lambda: evaluate.evaluate(EvaluateConfig(run))),
    }


def _train(config: ReproduceConfig, run: Path, preset: str) -> object:
    return train.train(TrainConfig(config.work / "features", run, "default" if preset == "default" else "reference"))


def average(source: FeatureCache, out: Path) -> None:
    """A small cache from a large one: the averages over the cells of the original view, in one shard a split."""
    rows = max(source.rows(split) for split in data.SPLITS)
    prints = source.fingerprint | {"pool": "avg", "views": ["original"], "shard_size": rows}
    names = [f"{split}-00000-of-00001" for split in data.SPLITS]
    for split, name in zip(data.SPLITS, names, strict=True):
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
        "default": (
            "config.json",
            "head.safetensors",
            "history.csv",
            "metrics.json",
            "metrics-validation.json",
            "model-int8.onnx",
        ),
        "reference": ("config.json", "history.csv", "metrics.json", "metrics-validation.json"),
        "retrained": ("history.csv", "metrics.json"),
    }.items():
        for name in names:
            _copy(config.work / preset / name, config.artifacts / preset / name)
    for path in (config.work / "published").iterdir():
        _copy(path, config.artifacts / "features" / path.name)
    size = sum(path.stat().st_size for path in config.artifacts.rglob("*") if path.is_file())
    console.print(f"published in {config.artifacts}: {size / 1e6:.1f} MB in all", markup=False, soft_wrap=True)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


if __name__ == "__main__":
    main(tyro.cli(ReproduceConfig, description=__doc__))
