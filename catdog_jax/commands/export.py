"""`catdog export`: a head to a file, and the folders around it."""

import json
from pathlib import Path

import onnx
from rich.text import Text

from catdog_jax import jax_environment
from catdog_jax.config import ExportConfig
from catdog_jax.console import console
from catdog_jax.deployment import graph
from catdog_jax.deployment.onnx_file import (
    TOLERANCE,
    _check_folders,
    _check_parity,
    _expected,
    _matching_weights,
    _metadata,
    _parity_photos,
    _repacked,
    _say,
    _variant,
    _write_folders,
)
from catdog_jax.errors import UsageError
from catdog_jax.files import atomic, sealed
from catdog_jax.heads import head
from catdog_jax.heads.run_directory import RunDirectory


def export(config: ExportConfig) -> Path:
    """Writes the head of a run, the convolutions and the preprocessing as one ONNX file.

    The bytes that are written have passed onnx.checker's full check and agree with JAX on photos:
    probabilities within `TOLERANCE`, in a batch and alone, and the same decisions. Until then no
    file is written, and an older one stays.

    Args:
      config: the run, the weights, and the photos to agree on; or an exported model, which is only
        put into folders.

    Returns:
      The path of the file.

    Raises:
      CatdogError: the weights are not those that the features were made with, there are no photos
        to compare on, the model does not agree with JAX, or fp16 or int8 judges worse than fp32 by
        more than `precisions.MAX_DROP`.
      UsageError: a setting is out of range.
    """
    if config.parity_photos < 2:
        raise UsageError(
            f"--parity-photos: expected 2 or more, found {config.parity_photos}. Leave it out for the default."
        )
    if config.gate_photos < 0:
        raise UsageError(
            f"--gate-photos: expected 0 or more, found {config.gate_photos}. Leave it out for the default."
        )
    _check_folders(config)
    if config.model is not None:
        return _repacked(config, config.model)
    jax_environment.require_devices()
    run = RunDirectory(config.run)
    out = config.out or run.model(config.precision)
    fitted = head.load(run.head)
    loaded = _matching_weights(config, fitted)
    left_out: dict[str, str] = {}
    source, photos = _parity_photos(config, left_out)
    parity = {"photos": len(photos), "tolerance": TOLERANCE}
    metadata = {**_metadata(config, fitted, loaded), "parity": json.dumps(parity), "seal": sealed.UNSEALED}
    mirror = "mirror" in config.views
    model = graph.build(loaded.params, loaded.mode, fitted, metadata, mirror).SerializeToString(deterministic=True)
    onnx.checker.check_model(model, full_check=True)
    difference = _check_parity(out, model, _expected(loaded, fitted, photos, mirror), photos, source)
    told = (
        f"agrees with JAX on {len(photos)} photos of {source}: max |Δprobability| {difference:.1e}, decisions identical"
    )
    if config.precision != "fp32":
        model, told = _variant(config, out, model, fitted.classes, left_out)
    _say(left_out)
    model = sealed.seal(model)
    atomic.write_bytes(out, model)
    console.print(Text(f"{out}: {len(model) / 1e6:.1f} MB; {told}"), soft_wrap=True)
    _write_folders(config, model)
    return out
