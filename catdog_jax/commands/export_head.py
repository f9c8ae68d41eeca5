"""`catdog export` of a trained head, which needs JAX."""

import itertools
from collections.abc import Mapping
from pathlib import Path

from catdog_jax import jax_environment
from catdog_jax.config import ExportConfig
from catdog_jax.console import say
from catdog_jax.deployment import onnx_file, parity
from catdog_jax.deployment.precisions import PRECISIONS
from catdog_jax.files import sealed
from catdog_jax.heads import head
from catdog_jax.heads.run_directory import RunDirectory
from catdog_jax.photos import sources

_NAMED = 3  # photos left out that are named


def export_head(config: ExportConfig, photos: sources.Dataset | None) -> tuple[Path, bytes]:
    """Writes the head of a run, the convolutions and the preprocessing as one ONNX file: its path, and its content.

    Raises:
      CatdogError: as `onnx_file.export`.
    """
    jax_environment.require_devices()
    run = RunDirectory(config.run)
    fitted = head.load(run.head)
    measured = run.metrics()
    if fitted.recipe.get("folds") and not measured.exists():
        measured = run.metrics("folds")
    kind = "metrics file of `catdog evaluate`"
    exported = onnx_file.export(
        fitted,
        config.out or run.model(config.precision),
        photos=photos or _photos(config, run, fitted),
        weights=config.weights,
        precision=config.precision,
        views=config.views,
        parity_photos=config.parity_photos,
        gate_photos=config.gate_photos,
        force=config.force,
        metrics=sealed.read_sealed_json(measured, kind, older=True) if measured.exists() else None,
    )
    assert exported.path is not None  # it was named
    if not exported.tested:
        say(f"The file gets no test figures: {measured} holds none of this head, its own test photos and these views.")
    _say_left_out(exported.left_out)
    say(f"{exported.path}: {len(exported.content) / 1e6:.1f} MB; {exported.said()}")
    return exported.path, exported.content


def _photos(config: ExportConfig, run: RunDirectory, fitted: head.FittedHead) -> sources.Dataset:
    needed, undivided = PRECISIONS[config.precision].splits, bool(fitted.recipe.get("folds"))
    if config.data is not None:
        return sources.load(config.data, needed, undivided=undivided)
    photos, note = parity.photos_at_hand(run, needed, undivided)
    if note:
        say(note)
    return photos


def _say_left_out(left_out: Mapping[str, str]) -> None:
    if left_out:
        named = "; ".join(f"{name!r}: {reason}" for name, reason in itertools.islice(left_out.items(), _NAMED))
        say(
            f"photos that cannot be decoded and were left out of the checks: {len(left_out):,}, for example {named}",
            "yellow",
        )
