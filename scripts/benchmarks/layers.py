"""Where the time of the native convolutions goes, layer by layer and phase by phase, beside what the products need.

    python -m scripts.benchmarks.layers                  # about half a minute on one core

One thread computes each layer alone, on inputs of ones. Times are of the thread's CPU, the least of all
rounds. The bound is the products' alone, at the rate that the same products reach within the first-level
cache. The result goes into artifacts/benchmarks/layers-MACHINE.json.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.table import Table

from catdog_jax import jax_environment
from catdog_jax.backbone import native, vgg16
from catdog_jax.console import console, show
from catdog_jax.files import sealed
from scripts.benchmarks.benchmark import ROOT, machine, slug

PHASES = ("input", "products", "output")


@dataclass(frozen=True)
class LayersConfig:
    """Time the native convolutions layer by layer."""

    size: int = 224
    """Height and width of the photos."""
    photos: int = 8
    """Photos at once."""
    rounds: int = 5
    """Rounds; the least time of each phase counts."""
    out: Path = ROOT / "artifacts" / "benchmarks"
    """Where layers-MACHINE.json is written."""


def products(layer: vgg16.Conv, size: int) -> int:
    """Multiply-adds of a layer on one photo, in tiles of 6 and of 4 along each axis."""
    if layer.inputs % 4:
        return size**2 * 9 * layer.inputs * layer.outputs
    points = min(8 * -(-max(size - 4 * fours, 0) // 6) + 6 * fours for fours in range(3))
    return points**2 * layer.inputs * layer.outputs


def time_layer(x: np.ndarray, outputs: int, pool: bool, rounds: int) -> list[float]:
    """Seconds of each phase."""
    lib, (n, height, width, inputs) = native.library(), x.shape
    kernel = native.transform_kernel(np.full((3, 3, inputs, outputs), 1 / inputs, np.float32))
    bias, spent = np.zeros(outputs, np.float32), np.full((rounds, 3), 0.0)
    y = np.empty((n, height >> pool, width >> pool, outputs), np.float32)
    for one in spent:
        arrays = [array.ctypes.data for array in (kernel, bias, y, one)]
        assert lib.catdog_convolve(x.ctypes.data, n, height, width, inputs, outputs, pool, *arrays)
    return spent.min(axis=0).tolist()


def peak() -> float:
    """Multiply-adds a second of products whose operands stay in the first-level cache; a turn takes some milliseconds."""
    lib = native.library()
    return max(lib.catdog_peak() for _ in range(100))


def measure(config: LayersConfig) -> list[dict[str, Any]]:
    """A row a layer: milliseconds a photo of each phase, and the bound of its products."""
    size, rows, rate = config.size, [], peak()
    for layer in vgg16.LAYERS:
        x = np.ones((config.photos, size, size, layer.inputs), np.float32)
        spent = time_layer(x, layer.outputs, layer.pool, config.rounds)
        took = {phase: 1e3 * seconds / config.photos for phase, seconds in zip(PHASES, spent, strict=True)}
        rows.append({"layer": layer.name, "size": size, **took, "bound": 1e3 * products(layer, size) / rate})
        size //= 1 + layer.pool
    total = {name: sum(row[name] for row in rows) for name in (*PHASES, "bound")}
    return [*rows, {"layer": "all", "size": config.size, **total}]


def table(rows: list[dict[str, Any]]) -> Table:
    shown = Table(
        "layer", "size", *PHASES, "together", "bound", "bound / products", "bound / together", title="ms a photo"
    )
    for row in rows:
        together = sum(row[phase] for phase in PHASES)
        figures = [*(row[phase] for phase in PHASES), together, row["bound"]]
        shares = [f"{row['bound'] / of:.2f}" for of in (row["products"], together)]
        shown.add_row(row["layer"], str(row["size"]), *(f"{figure:.2f}" for figure in figures), *shares)
    return shown


def main(config: LayersConfig) -> None:
    """Measures, prints the table and keeps it."""
    jax_environment.prepare()
    rows, described = measure(config), machine()
    show(table(rows))
    together = sum(rows[-1][phase] for phase in PHASES)
    console.print(f"{1e3 / together:.1f} photos/s a core; {os.cpu_count()} cores", markup=False)
    path = config.out / f"layers-{slug(described)}.json"
    sealed.write_json(path, {"machine": described, "photos": config.photos, "milliseconds a photo": rows})
    console.print(f"written: {path}", markup=False)


if __name__ == "__main__":
    main(tyro.cli(LayersConfig, prog="python -m scripts.benchmarks.layers", description=__doc__))
