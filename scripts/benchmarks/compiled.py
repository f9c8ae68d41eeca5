"""What XLA makes of this code for an H100 and a TPU v5e, on a machine that has neither.

    python -m scripts.benchmarks.compiled                             # both, as the row "now"
    python -m scripts.benchmarks.compiled h100 --code ../old --name before

The plugins of JAX compile for a device that is only described: pip install jax-cuda13-plugin
jax-cuda13-pjrt (for the H100) or libtpu (for the TPU), of the version of jax. Nothing is computed, so
these are no speeds: a table of kernels by kind, with the bytes and floating-point operations of
each, what a roofline makes of them on the H100, and the cycles that the compiler of the TPU
estimates. It goes into artifacts/benchmarks/compiled-TARGET.json, one entry for each --name.
Compiling takes seconds for the H100 and minutes for the TPU.
"""

import dataclasses
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest import mock

import tyro
from rich.table import Table
from tyro.conf import Positional

from scripts.benchmarks import hlo, stand_ins

ROOT = Path(__file__).parents[2]
Programs = Literal["forward", "forward caffe", "forward float32", "fit", "sweep"]
BATCH, ROWS, COLUMNS = 256, 15_000, 1024

# What the compiler reads of xla/backends/gpu/target_config/specs/h100_sxm.txtpb in github.com/openxla/xla
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84942979072
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
  runtime_version: "13.0.0" driver_version: "13.0.0" compile_time_toolkit_version: "13.0.0" dnn_version: "9.10.0"
  name: "NVIDIA H100 80GB HBM3"
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 patch: 0 } device_description_str: "NVIDIA H100 80GB HBM3"
"""


class Target(NamedTuple):
    """A device that is compiled for.

    Attributes:
      packages: what must be installed.
      options: of `jax.experimental.topologies.get_topology_desc`.
      memory: bytes.
      flops: a second by type, by the maker's data sheet; empty where the compiler estimates cycles.
      bandwidth: bytes a second, likewise; 0 for none.
    """

    packages: tuple[str, ...]
    options: dict[str, Any]
    memory: float
    flops: Mapping[str, float] = {}
    bandwidth: float = 0


TARGETS = {
    "h100": Target(
        ("jax-cuda13-plugin", "jax-cuda13-pjrt"),
        {"platform": "cuda", "target_config": H100, "topology": "1x1x1"},
        80e9,
        {"bf16": 989e12, "f32": 67e12},
        3.35e12,
    ),
    "tpu-v5e": Target(
        ("libtpu",), {"platform": "tpu", "topology_name": "v5e:1x1x1", "chips_per_host_bounds": (1, 1, 1)}, 16e9
    ),
}


@dataclasses.dataclass(frozen=True)
class CompiledConfig:
    """Compile for a GPU and a TPU that are not there, and tell what comes out."""

    targets: Positional[tuple[Literal["h100", "tpu-v5e"], ...]] = ("h100", "tpu-v5e")
    """What to compile for; by default both."""
    programs: tuple[Programs, ...] = ("forward", "forward caffe", "fit")
    """What to compile: the convolutions, in bfloat16 unless named otherwise; an epoch of the default head; one of 36 heads."""
    code: Path = ROOT
    """The checkout whose package is compiled, for example a git worktree of an older commit."""
    name: str = "now"
    """What it is called in the table."""
    keep: Path | None = None
    """A folder for XLA's programs as text. Those that are there already are read, and not compiled."""
    out: Path = ROOT / "artifacts" / "benchmarks"
    """Where compiled-TARGET.json is written."""


def prepare(config: CompiledConfig) -> None:
    """Sets what JAX reads when it starts, and puts the code that is compiled first. Ends where a plugin is missing."""
    missing = [package for target in config.targets for package in TARGETS[target].packages if not _version(package)]
    if missing:
        raise SystemExit(f"error: not installed. Run: pip install {' '.join(missing)} (of the version of jax)")
    flags = "--xla_gpu_autotune_level=0"  # autotuning would need the device
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # or it asks Google's metadata server which TPU this is
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    sys.path.insert(0, str(config.code.resolve()))
    stand_ins.install()  # compiling needs nothing of reports and plots


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def compile_one(program: str, target: Target) -> str:
    """XLA's program for a device that is described, as text."""
    import jax
    from jax.experimental import topologies

    device = topologies.get_topology_desc(**target.options).devices[0]
    sharding = jax.sharding.SingleDeviceSharding(device)

    def described(tree: Any, where: Any = sharding) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), tree)

    lowered = (
        _forward(program, device, target, described) if program.startswith("forward") else _fit(program, described)
    )
    return str(lowered.compile().as_text())


def _forward(program: str, device: Any, target: Target, described: Callable[..., Any]) -> Any:
    """What `catdog extract` runs there: an `Extractor` is made as on such a device, with shapes in place of arrays."""
    import jax
    import numpy as np

    from catdog_jax.backbone import weights
    from catdog_jax.features import extractor as extractors

    holder = getattr(extractors, "memory", extractors)  # older code asks for the memory in the extractor's file
    asks = "of" if holder is not extractors else "_memory"
    mode: Any = "caffe" if "caffe" in program else "torch"
    precision = "float32" if "float32" in program else "bfloat16"
    with (
        mock.patch.object(jax, "local_devices", return_value=[device]),
        mock.patch.object(jax, "device_put", side_effect=described),
        mock.patch.object(holder, asks, return_value=target.memory),
    ):
        pretrained = dataclasses.replace(weights.random(), mode=mode)
        extractor = extractors.Extractor(pretrained, precision=precision, batch_size=BATCH)
        photos = described(np.empty((BATCH, 224, 224, 3), np.uint8), extractor._by_photo)
        return extractor._compute.lower(extractor._params, photos)


def _fit(program: str, described: Callable[..., Any]) -> Any:
    """What an epoch of `catdog train` runs there: the default head on 15,000 rows, or the 36 MLPs of a sweep of 48."""
    import jax
    import numpy as np

    from catdog_jax.config import Recipe
    from catdog_jax.heads import search, steps
    from catdog_jax.heads.rows import Chunk, Scaling

    key = jax.random.key(0)
    columns = np.zeros((1, COLUMNS), np.float32)
    chunk = Chunk(np.zeros((ROWS, COLUMNS), np.float16), np.zeros(ROWS, np.float32))
    recipes, options = [Recipe()], {}
    shape = steps.Shape(recipes[0].hidden, recipes[0].batch_size, 59)
    if program == "sweep":
        from catdog_jax.heads import merging

        drawn = search.draw(Recipe(), search.POOLS, 48, 0, lambda _: False, ROWS)
        recipes = max(merging.groups(drawn, together=True, across=True), key=len)
        merged = merging.merge(recipes, "avg+max", COLUMNS)
        shape = steps.Shape(merged.hidden, recipes[0].batch_size, 59, merged.drawn)
        options = {"cut": described(merged.cut)}
    state = jax.eval_shape(lambda key: steps.initial(key, COLUMNS, shape, len(recipes)), key)
    parts = (state, chunk, key, Scaling(columns, columns), steps.hypers(recipes))
    return steps.run_chunk.lower(*map(described, parts), shape, **options)


def measure(program: str, name: str, target: str, keep: Path | None) -> dict[str, Any]:
    """The kernels of a program by kind, and what they add up to."""
    path = keep / f"{target}-{name}-{program.replace(' ', '-')}.hlo" if keep else None
    if path is not None and path.exists():
        text = path.read_text()
    else:
        text = compile_one(program, TARGETS[target])
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    kernels = hlo.kernels(text)
    result = hlo.summary(kernels, TARGETS[target].flops, TARGETS[target].bandwidth)
    if program.startswith("forward") and result.get("roofline seconds"):
        result["roofline photos/s"] = BATCH / result["roofline seconds"]
    return result


def table(target: str, described: dict[str, Any]) -> Table:
    """A row for each program and name."""
    shown = Table("", "", "kernels", "GB moved", "TFLOP", "roofline", "cycles", "kernels by kind", title=target)
    for program, names in described["programs"].items():
        for name, row in names.items():
            kinds = ", ".join(f"{one['count']} {kind}" for kind, one in row["kinds"].items())
            limit = f"{1e3 * row['roofline seconds']:.2f} ms" if row.get("roofline seconds") else ""
            cycles = f"{row['cycles'] / 1e6:,.1f} M" if row["cycles"] else ""
            cells = [str(row["kernels"]), f"{row['bytes'] / 1e9:.2f}", f"{row['flops'] / 1e12:.2f}"]
            shown.add_row(program, name, *cells, limit, cycles, kinds)
    return shown


def main(config: CompiledConfig) -> None:
    """Compiles, prints a table for each target and keeps it."""
    prepare(config)
    from catdog_jax.console import show
    from catdog_jax.files import sealed

    for target in config.targets:
        path = config.out / f"compiled-{target}.json"
        known = json.loads(path.read_text())["programs"] if path.exists() else {}
        versions = {package: _version(package) for package in ("jax", "jaxlib", "flax", *TARGETS[target].packages)}
        for program in config.programs:
            found = measure(program, config.name, target, config.keep)
            known[program] = known.get(program, {}) | {config.name: found | {"versions": versions}}
            path.parent.mkdir(parents=True, exist_ok=True)
            sealed.write_json(path, {"target": target, "programs": known})
        show(table(target, {"programs": known}))


if __name__ == "__main__":
    main(tyro.cli(CompiledConfig, prog="python -m scripts.benchmarks.compiled", description=__doc__))
