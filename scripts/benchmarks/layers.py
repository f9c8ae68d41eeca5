"""Where the time of the convolutions in C++ goes, layer by layer, beside what their products need.

    python -m scripts.benchmarks.layers                  # about half a minute on one core
    python -m scripts.benchmarks.layers --conv amx       # those in bfloat16, where the processor has AMX

One thread computes; times are of its CPU, the least of all rounds. `native` computes each layer alone, on
inputs of ones, and its times are divided into phases; `amx` computes all layers, on random pixels. The
bound is the products' alone, at the rate that they reach within the first-level cache. The result goes
into artifacts/benchmarks/layers-MACHINE.json, or layers-amx-MACHINE.json.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.table import Table

from catdog_jax import jax_environment
from catdog_jax.backbone import amx, native, vgg16, weights
from catdog_jax.console import console, show
from catdog_jax.errors import CatdogError
from catdog_jax.files import sealed
from scripts.benchmarks.benchmark import ROOT, machine, slug

PHASES = ("input", "products", "output")


@dataclass(frozen=True)
class LayersConfig:
    """Time the convolutions in C++ layer by layer."""

    conv: Literal["native", "amx"] = "native"
    """The float32 ones or the bfloat16 ones."""
    size: int = 224
    """Height and width of the photos."""
    photos: int = 8
    """Photos at once."""
    rounds: int = 10
    """Rounds; the least time of each phase counts."""
    out: Path = ROOT / "artifacts" / "benchmarks"
    """Where layers-MACHINE.json is written."""


def products(layer: vgg16.Conv, size: int, conv: str) -> int:
    """Multiply-adds of a layer on one photo: of direct convolution, or in tiles of 6 and of 4 along each axis."""
    if conv == "amx" or layer.inputs % 4:
        return size**2 * 9 * layer.inputs * layer.outputs
    points = min(8 * -(-max(size - 4 * fours, 0) // 6) + 6 * fours for fours in range(3))
    return points**2 * layer.inputs * layer.outputs


def time_native(config: LayersConfig) -> list[dict[str, float]]:
    """Seconds of each layer's phases."""
    lib, size, rows = native.library(), config.size, []
    for layer in vgg16.LAYERS:
        x = np.ones((config.photos, size, size, layer.inputs), np.float32)
        kernel = native.transform_kernel(np.full((3, 3, layer.inputs, layer.outputs), 1 / layer.inputs, np.float32))
        bias, spent = np.zeros(layer.outputs, np.float32), np.full((config.rounds, 3), 0.0)
        y = np.empty((config.photos, size >> layer.pool, size >> layer.pool, layer.outputs), np.float32)
        for one in spent:
            arrays = [array.ctypes.data for array in (kernel, bias, y, one)]
            shape = (config.photos, size, size, layer.inputs, layer.outputs, layer.pool)
            assert lib.catdog_convolve(x.ctypes.data, *shape, *arrays)
        rows.append(dict(zip(PHASES, spent.min(axis=0).tolist(), strict=True)))
        size //= 1 + layer.pool
    return rows


def time_amx(config: LayersConfig) -> list[dict[str, float]]:
    """Seconds of each layer."""
    lib, params = amx.library(), jax.tree.map(_in_bfloat16, amx.transform_kernels(weights.load().params))
    rng, size = np.random.default_rng(0), config.size
    x = rng.normal(size=(config.photos, size, size, 3)).astype(jnp.bfloat16)
    y = np.empty((config.photos, size >> 5, size >> 5, vgg16.CHANNELS), jnp.bfloat16)
    pointers = [[params[layer.name][part].ctypes.data for part in ("kernel", "bias")] for layer in vgg16.LAYERS]
    fields = zip(vgg16.LAYERS, pointers, strict=True)
    layers = np.array([[one.inputs, one.outputs, one.pool, *pair] for one, pair in fields], np.int64)
    spent = np.full((config.rounds, len(layers)), 0.0)
    for one in spent:
        arrays = (layers.ctypes.data, len(layers), y.ctypes.data, one.ctypes.data)
        assert lib.catdog_time(x.ctypes.data, config.photos, size, size, *arrays)
    return [{"together": seconds} for seconds in spent.min(axis=0).tolist()]


def _in_bfloat16(leaf: np.ndarray) -> np.ndarray:
    return leaf if leaf.dtype == jnp.bfloat16 else leaf.astype(jnp.bfloat16)


def measure(config: LayersConfig) -> list[dict[str, Any]]:
    """A row a layer: milliseconds a photo, of each phase where they are known, and the bound of its products."""
    module, times = (native, time_native) if config.conv == "native" else (amx, time_amx)
    rate = max(module.library().catdog_peak() for _ in range(100))  # a turn takes some milliseconds
    size, rows = config.size, []
    for layer, spent in zip(vgg16.LAYERS, times(config), strict=True):
        took = {name: 1e3 * of / config.photos for name, of in spent.items()}
        took.setdefault("together", sum(took.values()))
        bound = 1e3 * products(layer, size, config.conv) / rate
        rows.append({"layer": layer.name, "size": size, **took, "bound": bound})
        size //= 1 + layer.pool
    total = {name: sum(row[name] for row in rows) for name in rows[0] if name not in ("layer", "size")}
    return [*rows, {"layer": "all", "size": config.size, **total}]


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows as they are printed, with the share of the time that the products need at least."""
    columns = [name for name in rows[0] if name not in ("layer", "size")]
    shown = Table("layer", "size", *columns, "bound / together", title="ms a photo")
    for row in rows:
        figures = [f"{row[name]:.2f}" for name in columns]
        shown.add_row(row["layer"], str(row["size"]), *figures, f"{row['bound'] / row['together']:.2f}")
    return shown


def main(config: LayersConfig) -> None:
    """Measures, prints the table and keeps it."""
    jax_environment.prepare()
    rows, described = measure(config), machine()
    show(table(rows))
    console.print(f"{1e3 / rows[-1]['together']:.1f} photos/s a core; {os.cpu_count()} cores", markup=False)
    path = config.out / f"layers-{'' if config.conv == 'native' else 'amx-'}{slug(described)}.json"
    sealed.write_json(path, {"machine": described, "photos": config.photos, "milliseconds a photo": rows})
    console.print(f"written: {path}", markup=False)


if __name__ == "__main__":
    try:
        main(tyro.cli(LayersConfig, prog="python -m scripts.benchmarks.layers", description=__doc__))
    except CatdogError as error:
        console.print(f"error: {error}", style="bold red", markup=False, soft_wrap=True)
        raise SystemExit(error.exit_status) from None
