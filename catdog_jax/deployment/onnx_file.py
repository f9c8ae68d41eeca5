"""A head, the convolutions and the preprocessing as one ONNX file: `export`."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from catdog_jax import __version__, jax_environment
from catdog_jax.backbone import vgg16
from catdog_jax.backbone import weights as weight_files
from catdog_jax.config import THRESHOLD, ExportConfig
from catdog_jax.deployment import gate, graph, parity, precisions
from catdog_jax.deployment.gate import Gate
from catdog_jax.deployment.parity import Parity
from catdog_jax.deployment.precisions import PRECISIONS
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.files import atomic, sealed
from catdog_jax.heads.head import FittedHead, digest
from catdog_jax.heads.run_directory import TEST
from catdog_jax.photos import sources
from catdog_jax.photos.dataset import Dataset
from catdog_jax.photos.fingerprint import Fingerprint
from catdog_jax.photos.recipe import DecodingRecipe
from catdog_jax.ranges import check_arguments
from catdog_jax.runtime import decision, side_by_side

LICENCES = {
    "code": "Apache-2.0 (catdog_jax)",
    "weights": "VGG16: BSD-3-Clause from torchvision; CC BY 4.0 (Simonyan and Zisserman, University of Oxford) from Keras",
}


@dataclass(frozen=True, repr=False)
class Exported:
    """An exported model, and how it was checked. `bytes(exported)` is the content of the file.

    Attributes:
      content: of the file.
      path: where it was written; None where no path was given.
      parity: how its float32 form agrees with JAX.
      gate: how it compares with its float32 form; None of fp32.
      left_out: the photos that cannot be decoded and took no part in the checks: id -> reason.
      tested: whether the file has the test figures of its head.
      notes: what was decided where nothing was named, a sentence each.
    """

    content: bytes
    path: Path | None
    parity: Parity
    gate: Gate | None
    left_out: dict[str, str]
    tested: bool
    notes: tuple[str, ...] = ()

    def __bytes__(self) -> bytes:
        return self.content

    def __repr__(self) -> str:
        return f"Exported({self.path or 'in memory'}: {len(self.content) / 1e6:.1f} MB; {self.said()})"

    def said(self) -> str:
        """How the model was checked, in words."""
        return self.parity.said() if self.gate is None else self.gate.said(self.parity.source)


def export(
    head: FittedHead,
    path: Path | str | None = None,
    *,
    photos: Dataset | Path | str | None = None,
    weights: str = "auto",
    precision: str = "fp32",
    views: Sequence[str] = ("original",),
    parity_photos: int = 32,
    gate_photos: int = 500,
    force: bool = False,
    metrics: Any = None,
) -> Exported:
    """Makes one ONNX file of a head, the convolutions and the preprocessing.

    The bytes have passed onnx.checker's full check and agree with JAX on photos: probabilities
    within `parity.TOLERANCE`, in a batch and alone, and the same decisions. Until then no file is
    written, and an older one stays.

    Args:
      head: a head on features of this package.
      path: the file to write, atomically; by default none is written.
      photos: what the file is checked on, a data set or its name: best what the head was trained on.
        By default the embedded drawings.
      weights: where the VGG16 weights come from; they must be those that the features were made
        with.
      precision: "fp32", "fp16" (half the bytes) or "int8" (a quarter, and several times as fast on
        CPUs with 8-bit instructions); see `precisions`.
      views: ("original",), or ("original", "mirror") for the mean of a photo and its mirror image.
      parity_photos: how many photos the file and JAX must agree on.
      gate_photos: how many validation photos fp16 and int8 are compared with fp32 on; 0 for all.
      force: whether fp16 or int8 are written even where their accuracy is too low.
      metrics: test figures to put into the file, as metrics.json has them: a mapping, or an object
        whose `to_json` gives one. Figures of another head, other photos or other views stay out.

    Raises:
      CatdogError: the weights are not those that the features were made with, there are no photos to
        compare on, the model does not agree with JAX, or fp16 or int8 is less accurate than fp32 by
        more than `gate.MAX_DROP`.
      UsageError: an argument is out of range.

    Example:
      >>> import catdog_jax as cd
      >>> exported = cd.export(head, "run/model.onnx", photos=photos)
      >>> exported.parity.difference < 1e-4
      True
    """
    check_arguments(
        ExportConfig, precision=precision, views=views, parity_photos=parity_photos, gate_photos=gate_photos
    )
    if "original" not in views:
        raise UsageError(f"--views: expected original, with mirror or without, found {', '.join(views)}. Add it.")
    jax_environment.require_devices()
    path = None if path is None else Path(path)
    loaded = _matching_weights(weights, head)
    notes = () if photos is not None else ("photos: none are named; comparing on the embedded drawings.",)
    seen = bool(head.recipe.get("folds"))  # such a head has no validation photos: it was trained on all
    dataset = (
        photos
        if isinstance(photos, Dataset)
        else sources.load(str(photos or "demo"), PRECISIONS[precision].splits, undivided=seen)
    )
    left_out: dict[str, str] = {}
    pixels = parity.photos_of(dataset, parity_photos, left_out, head.fingerprint.recipe)
    figures = tested_figures(head, views, metrics)
    compared = {"photos": len(pixels), "tolerance": parity.TOLERANCE}
    described = {**metadata(head, loaded, views, figures), "parity": json.dumps(compared), "seal": sealed.UNSEALED}
    mirror = "mirror" in views
    model = graph.build(loaded.params, loaded.mode, head, described, mirror).SerializeToString(deterministic=True)
    onnx.checker.check_model(model, full_check=True)
    name = str(path or "model")
    answers = parity.expected(loaded, head, pixels, mirror)
    agreed = parity.check(name, model, answers, pixels, dataset.source, head.threshold)
    passed = None
    if PRECISIONS[precision].splits:
        model, passed = smaller(
            name,
            model,
            precision,
            dataset,
            head.classes,
            gate_photos,
            force,
            left_out,
            head.fingerprint.recipe,
            head.threshold,
            seen,
        )
    model = sealed.seal(model)
    if path is not None:
        atomic.write_bytes(path, model)
    return Exported(model, path, agreed, passed, left_out, figures is not None, notes)


def smaller(
    name: str,
    fp32: bytes,
    precision: str,
    dataset: Dataset,
    classes: tuple[str, str],
    gate_photos: int,
    force: bool,
    left_out: dict[str, str],
    recipe: DecodingRecipe,
    threshold: float = THRESHOLD,
    seen: bool = False,
) -> tuple[bytes, Gate]:
    """The file in a smaller precision, and how it compares with fp32 on validation photos; see `export`.

    Where there are none, because the head was trained on all photos, the last of train take their place; `seen` says
    that it was trained on those of validation too. `left_out` takes the ids of the photos that cannot be decoded, with
    the reason.

    Raises:
      CatdogError: the photos are of other classes, or the file is not fit to be published.
    """
    if dataset.classes != classes:
        raise CatdogError(
            f"{dataset.source}: expected photos of {classes}, found {dataset.classes}. Name some with --data."
        )
    splits, convert = PRECISIONS[precision]
    training = side_by_side.readable(dataset.split("train") if "train" in splits else (), left_out, [recipe])
    model = convert(fp32, [views[0] for views, _ in itertools.islice(training, precisions.CALIBRATION_PHOTOS)])
    onnx.checker.check_model(model, full_check=True)
    if wrong := precisions.saturating(model):
        raise CatdogError(
            f"{name}: expected 8-bit kernels that all CPUs multiply alike, found {', '.join(wrong)}, which saturate without "
            "VNNI. Nothing was written; please report this."
        )
    unseen = dataset.split("validation")
    records = (unseen or dataset.split("train")[::-1])[: gate_photos or None]
    judged = side_by_side.readable(records, left_out, [recipe, recipe])
    measured = gate.measure(model, fp32, judged, len(records), threshold)
    if seen or not unseen:
        measured = measured._replace(split="train")
    if measured.drop > gate.MAX_DROP and not force:
        raise CatdogError(
            f"{name}: expected {precision} within {100 * gate.MAX_DROP:g} points of fp32, found "
            f"{measured.said(dataset.source)}. Nothing was written; write it all the same with --force."
        )
    return precisions.described(model, {"precision": precision, "gate": json.dumps(measured._asdict())}), measured


def _matching_weights(source: str, head: FittedHead) -> weight_files.Weights:
    if head.pool is None or head.fingerprint == Fingerprint():
        raise CatdogError(
            f"head: expected one that was trained on features of this package, found one of {head.columns:,} columns of "
            "unknown origin. Train on a feature cache, or name the pool and the fingerprint of the features in the training."
        )
    loaded = weight_files.load(source, head.fingerprint.preprocessing)
    expected = head.fingerprint.weights_sha256
    if loaded.sha256 != expected:
        raise CatdogError(
            f"{source}: expected the weights that the features were made with, sha256 {expected}, "
            f"found {loaded.sha256} ({loaded.source}). Name those with --weights, or extract and train again."
        )
    current = dataclasses.replace(
        head.fingerprint,
        preprocessing_version=vgg16.PREPROCESSING_VERSION,
        image=head.fingerprint.recipe.to_json(),
    )
    head.fingerprint.check_compatible(current)
    return loaded


# What the file says of itself


def tested_figures(head: FittedHead, views: Sequence[str], metrics: Any) -> dict[str, Any] | None:
    """The figures that go into the file: those of this head, of its own test photos or its folds, and of these views.

    None where there are no such figures.
    """
    measured: Mapping[str, Any] = metrics.to_json() if hasattr(metrics, "to_json") else metrics or {}
    if not measured.get("own_features") or measured.get("head_sha256") != digest(head.params):
        return None
    if measured.get("threshold", THRESHOLD) != head.threshold:  # the same parameters may decide otherwise
        return None
    of_views = measured if len(views) == 1 else measured.get("views_averaged")
    if of_views is None:
        return None
    figures = {name: of_views.get(name) for name in ("metrics", "confusion")}  # no photo's name
    if "baseline" in measured:  # not in files of versions before
        figures["baseline"] = measured["baseline"]
    split = measured.get("split", TEST)
    if split not in (TEST, "folds"):
        return None
    return {"split": split, "n": measured.get("n"), "warnings": measured.get("warnings", []), **figures}


def metadata(
    head: FittedHead, loaded: weight_files.Weights, views: Sequence[str], figures: dict[str, Any] | None
) -> dict[str, str]:
    """The `metadata_props` of a file but for its parity and its seal.

    Raises:
      CatdogError: the recipe of the head has no valid threshold or level to abstain at.
    """
    fingerprint = head.fingerprint.to_json()
    values = {
        "classes": head.classes,
        "views": list(views),
        "recipe": head.fingerprint.recipe.to_json(),
        "features": fingerprint,
        "head": head.recipe,
        "decision": decision.read(head.classes, {"head": json.dumps(head.recipe)}).settings(),
        "licences": LICENCES,
        **({} if figures is None else {"test_metrics": figures}),
    }
    strings = {
        "version": __version__,
        "preprocessing": loaded.mode,
        "weights_sha256": loaded.sha256,
        "head_sha256": digest(head.params),
        "features_fingerprint": sealed.sha256_of_json(fingerprint),
    }
    return {**strings, **{name: json.dumps(value, sort_keys=name == "features") for name, value in values.items()}}
