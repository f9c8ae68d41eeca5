"""The graph of graph.py as one ONNX file, checked against JAX on photos before it takes its name; folders around the file."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from rich.text import Text

from catdog_jax import __version__
from catdog_jax.backbone import vgg16, weights
from catdog_jax.config import THRESHOLD, ExportConfig
from catdog_jax.console import console
from catdog_jax.deployment import browser, precisions, triton
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.features import extractor
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import buckets, sealed
from catdog_jax.heads import head
from catdog_jax.heads.run_directory import RunDirectory
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.prefetch import decoded
from catdog_jax.runtime import decision
from catdog_jax.runtime.predictor import Predictor

TOLERANCE = 1e-4  # on probabilities; decisions must be the same, however near to it
LICENCES = {
    "code": "Apache-2.0 (catdog_jax)",
    "weights": "VGG16: BSD-3-Clause from torchvision; CC BY 4.0 (Simonyan and Zisserman, University of Oxford) from Keras",
}
_PARITY_BATCH = 8  # bounds the memory of the check
_NEEDED: dict[str, tuple[str, ...]] = {"fp32": (), "fp16": ("validation",), "int8": ("train", "validation")}  # splits
_ALONE = 2  # photos that are also checked in a batch of one
_AHEAD = 16  # photos that wait, decoded, for their turn
_NAMED = 3  # photos left out that are named


def _repacked(config: ExportConfig, path: Path) -> Path:
    if config.triton is None and config.web is None:
        raise UsageError("--model: expected a folder to put it into, found none. Name one with --web or --triton.")
    Predictor(path)  # says what it is, where it is no model
    _write_folders(config, path.read_bytes())
    return path


def _check_folders(config: ExportConfig) -> None:
    """Says what cannot be written before the work begins."""
    if config.triton is not None:
        triton.check(config.triton)
    if config.web is not None:
        browser.check(config.web, config.web_runtime)


def _write_folders(config: ExportConfig, model: bytes) -> None:
    if config.triton is not None:
        triton.write(config.triton, model)
    if config.web is not None:
        browser.write(config.web, model, config.web_runtime)


def _variant(
    config: ExportConfig, out: Path, fp32: bytes, classes: tuple[str, str], left_out: dict[str, str]
) -> tuple[bytes, str]:
    """The file in a smaller precision, and a sentence on how it compares with fp32 on validation photos."""
    dataset = _parity_dataset(config)
    if dataset.classes != classes:
        raise CatdogError(
            f"{dataset.source}: expected photos of {classes}, found {dataset.classes}. Name some with --data."
        )
    if config.precision == "int8":
        training = itertools.islice(_readable(dataset.split("train"), left_out), precisions.CALIBRATION_PHOTOS)
        model = precisions.to_int8(fp32, [photo for photo, _ in training])
    else:
        model = precisions.to_fp16(fp32)
    onnx.checker.check_model(model, full_check=True)
    if wrong := precisions.saturating(model):
        raise CatdogError(
            f"{out}: expected 8-bit kernels that all CPUs multiply alike, found {', '.join(wrong)}, which saturate without "
            "VNNI. Nothing was written; please report this."
        )
    records = dataset.split("validation")[: config.gate_photos or None]
    gate = precisions.judge(model, fp32, _readable(records, left_out), len(records))
    interval = f"{100 * gate.drop_low:.2f} to {100 * gate.drop_high:.2f}"
    told = (
        f"accuracy {gate.accuracy:.2%} against fp32's {gate.fp32_accuracy:.2%} on {gate.n:,} validation photos of "
        f"{dataset.source} (a drop of {100 * gate.drop:.2f} points, 95 % interval {interval}), "
        f"log loss {gate.log_loss:.4f} against {gate.fp32_log_loss:.4f}, {gate.speed:.2f} times as fast"
    )
    if gate.drop > precisions.MAX_DROP and not config.force:
        raise CatdogError(
            f"{out}: expected {config.precision} within {100 * precisions.MAX_DROP:g} points of fp32, found {told}. "
            "Nothing was written; write it all the same with --force."
        )
    return precisions.described(model, {"precision": config.precision, "gate": json.dumps(gate._asdict())}), told


# What goes in, and what is said of it


def _matching_weights(config: ExportConfig, fitted: head.FittedHead) -> weights.Weights:
    loaded = weights.load(config.weights, fitted.fingerprint.preprocessing)
    expected = fitted.fingerprint.weights_sha256
    if loaded.sha256 != expected:
        raise CatdogError(
            f"{config.weights}: expected the weights that the features were made with, sha256 {expected}, "
            f"found {loaded.sha256} ({loaded.source}). Name those with --weights, or extract and train again."
        )
    current = dataclasses.replace(
        fitted.fingerprint, preprocessing_version=vgg16.PREPROCESSING_VERSION, image=decoding.RECIPE
    )
    fitted.fingerprint.check_compatible(current)
    return loaded


def _metadata(config: ExportConfig, fitted: head.FittedHead, loaded: weights.Weights) -> dict[str, str]:
    views = config.views.split(",")
    fingerprint = fitted.fingerprint.to_json()
    values = {
        "classes": fitted.classes,
        "views": views,
        "recipe": decoding.RECIPE,
        "features": fingerprint,
        "head": fitted.recipe,
        "decision": decision.read(fitted.classes, {"head": json.dumps(fitted.recipe)}).settings(),
        "licences": LICENCES,
    }
    metrics = RunDirectory(config.run).metrics()
    if metrics.exists():
        measured = sealed.read_sealed_json(metrics, "metrics file of `catdog evaluate`", older=True)
        if measured.get("own_features") and measured.get("head_sha256") == head.digest(fitted.params):
            judged = measured if len(views) == 1 else measured.get("views_averaged")
            if judged is not None:
                figures = {name: judged.get(name) for name in ("metrics", "confusion")}  # no photo's name
                values["test_metrics"] = {"n": measured.get("n"), "warnings": measured.get("warnings", []), **figures}
    if "test_metrics" not in values:
        message = (
            f"The file gets no test figures: {metrics} holds none of this head, its own test photos and these views."
        )
        console.print(Text(message), soft_wrap=True)
    strings = {
        "version": __version__,
        "preprocessing": loaded.mode,
        "weights_sha256": loaded.sha256,
        "head_sha256": head.digest(fitted.params),
        "features_fingerprint": sealed.sha256_of_json(fingerprint),
    }
    return {**strings, **{name: json.dumps(value, sort_keys=name == "features") for name, value in values.items()}}


# Parity


def _parity_photos(config: ExportConfig, left_out: dict[str, str]) -> tuple[str, np.ndarray]:
    """The source and the photos to compare on, uint8 [N, 224, 224, 3]."""
    dataset = _parity_dataset(config)
    records = itertools.chain.from_iterable(dataset.split(split) for split in reversed(sources.SPLITS))
    photos = [photo for photo, _ in itertools.islice(_readable(records, left_out), config.parity_photos)]
    if len(photos) < 2:
        raise CatdogError(
            f"{dataset.source}: expected at least 2 photos that can be read, found {len(photos)}. Check --data."
        )
    return dataset.source, np.stack(photos)


def _parity_dataset(config: ExportConfig) -> sources.Dataset:
    if config.data is not None:
        return sources.load(config.data, _NEEDED[config.precision])
    try:
        settings = sealed.read_json(RunDirectory(config.run).settings, "run's settings file")
        source = FeatureCache.open(buckets.found_from(config.run, settings["features"])).source
        return sources.load(source, _NEEDED[config.precision])
    except (CatdogError, KeyError, TypeError) as error:
        message = f"The photos of the training are not at hand ({error}); comparing on the embedded drawings."
        console.print(Text(message), soft_wrap=True)
        return sources.load("demo", _NEEDED[config.precision])


def _readable(records: Iterable[sources.Record], left_out: dict[str, str]) -> Iterator[tuple[np.ndarray, int]]:
    """Pixels and label of the photos that can be decoded; the ids of the others go into `left_out`, with the reason."""
    for one in decoded(records, None, _AHEAD):
        if one.pixels is None:
            left_out[one.record.id] = one.reason
        else:
            yield one.pixels, one.record.label


def _say(left_out: dict[str, str]) -> None:
    if left_out:
        named = "; ".join(f"{name!r}: {reason}" for name, reason in itertools.islice(left_out.items(), _NAMED))
        message = (
            f"photos that cannot be decoded and were left out of the checks: {len(left_out):,}, for example {named}"
        )
        console.print(Text(message, "yellow"), soft_wrap=True)


def _expected(loaded: weights.Weights, fitted: head.FittedHead, photos: np.ndarray, mirror: bool) -> np.ndarray:
    """JAX's probabilities of the second class, float64 [N], computed in full float32 on whatever device there is."""
    extract = extractor.Extractor(loaded, pool=fitted.pool, precision="float32", batch_size=_PARITY_BATCH)
    views = [photos, photos[:, :, ::-1]] if mirror else [photos]
    return np.mean([head.probabilities(fitted.params, extract(view)) for view in views], axis=0)


def _check_parity(out: Path, model: bytes, expected: np.ndarray, photos: np.ndarray, source: str) -> float:
    """The largest difference between the file's probabilities and JAX's.

    Raises:
      CatdogError: it is not below `TOLERANCE`, or a decision differs.
    """
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    batches = [photos[i : i + _PARITY_BATCH] for i in range(0, len(photos), _PARITY_BATCH)]
    alone = [photo[None] for photo in photos[:_ALONE]]
    rows = np.concatenate([session.run(["probability"], {"image": batch})[0] for batch in batches + alone])
    expected = np.concatenate([expected, expected[:_ALONE]])
    difference = float(np.abs(rows - np.stack([1 - expected, expected], axis=1)).max())
    others = int(((rows[:, 1] >= THRESHOLD) != (expected >= THRESHOLD)).sum())
    if not difference < TOLERANCE or others:  # written so that NaN fails
        raise CatdogError(
            f"{out}: expected JAX's probabilities within {TOLERANCE:g} and its decisions on {len(photos)} photos of {source}, "
            f"found a difference of {difference:.2g} and {others} other decisions. Nothing was written; please report this."
        )
    return difference
