"""The sections of accelerator.py, each in a process of its own.

    python -m scripts.benchmarks.sections NAME [--seconds 60] [--turn 2] [--tiny]

A section prints a line of JSON for each figure, {"name", "value", "unit"}, higher is better where the
unit is a rate, and stops before the next figure once its seconds are over.
"""

import argparse
import dataclasses
import functools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from scripts.benchmarks import stand_ins

Figures = Iterator[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
      turn: seconds a figure is measured for.
      tiny: whether as little as possible is computed.
    """

    turn: float
    tiny: bool

    def size(self, usual: int, tiny: int) -> int:
        """A number of photos, rows or columns."""
        return tiny if self.tiny else usual


def figure(name: str, value: float, unit: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, **more}


def rate(work: Callable[[], float], seconds: float) -> float:
    """Units a second of work that returns how many it did; the first time is not counted."""
    work()
    start, done = time.perf_counter(), 0.0
    while (elapsed := time.perf_counter() - start) < seconds or not done:
        done += work()
    return done / elapsed


def photos_of(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), np.uint8)


# What the machine is, and whether it computes right


def about(settings: Settings) -> Figures:
    """The device, so that the figures have a name even where everything after it fails."""
    import jax

    device = jax.devices()[0]
    memory = (device.memory_stats() or {}).get("bytes_limit", 0)
    yield figure(
        "devices", len(jax.devices()), "devices", device=device.device_kind, platform=device.platform, memory=memory
    )


def sanity(settings: Settings) -> Figures:
    """Each computation beside NumPy in float64, as in `catdog doctor`, and each form of the convolutions."""
    from catdog_jax import numerics
    from catdog_jax.backbone import weights
    from catdog_jax.features.extractor import Extractor

    pretrained = weights.random()
    for check in numerics.CHECKS if not settings.tiny else numerics.CHECKS[:2]:
        told = numerics.fault(check)
        yield figure(check.name, int(not told), "right", said=told)
    photos = photos_of(1)
    pixels = numerics.vgg16_pixels(photos, pretrained.mode)
    expected = numerics.convolutions(pretrained.params, pixels).mean(axis=(1, 2))
    for conv, precision, tolerance in (
        ("auto", "auto", numerics.BFLOAT16),
        *(
            ("direct-gpu", precision, limit)
            for precision, limit in (("float32", 1e-4), ("bfloat16", numerics.BFLOAT16))
        ),
        ("direct", "float32", numerics.FLOAT32),
    )[: settings.size(4, 1)]:
        found = Extractor(pretrained, conv=conv, precision=precision, batch_size=2)(photos)
        error = float(np.abs(found - expected).max() / np.abs(expected).max())
        yield figure(f"{conv}, {precision}", int(error <= tolerance), "right", off_by=error, tolerance=tolerance)


# What the device can do at most


def limits(settings: Settings) -> Figures:
    """Products of random matrices (a card computes ones and zeros faster), memory, and the way from the host."""
    import jax
    import jax.numpy as jnp

    size = settings.size(8192, 256)
    for dtype, precision in ((jnp.bfloat16, None), (jnp.float32, None), (jnp.float32, jax.lax.Precision.HIGHEST)):
        a, b = (jax.random.normal(jax.random.key(i), (size, size), dtype) for i in range(2))
        product = jax.jit(lambda a, b, precision=precision: jnp.matmul(a, b, precision=precision))

        def multiply(product: Any = product, a: Any = a, b: Any = b) -> float:
            jax.block_until_ready([product(a, b) for _ in range(4)])
            return 4 * 2 * size**3 / 1e12

        name = f"matrix product, {jnp.dtype(dtype).name}{', HIGHEST' if precision else ''}"
        yield figure(name, rate(multiply, settings.turn), "TFLOP/s", size=size)
    count = settings.size(2**28, 2**16)
    x = jax.random.normal(jax.random.key(0), (count,), jnp.float32)
    scaled = jax.jit(lambda x: x * 1.5)

    def scale() -> float:
        jax.block_until_ready([scaled(x) for _ in range(2)])
        return 2 * 2 * x.nbytes / 1e9

    yield figure("memory, read and written", rate(scale, settings.turn), "GB/s", bytes=x.nbytes)
    photos = photos_of(settings.size(256, 4))

    def send() -> float:
        jax.block_until_ready([jax.device_put(photos, may_alias=False) for _ in range(2)])
        return 2 * photos.nbytes / 1e9

    yield figure("host to device", rate(send, settings.turn), "GB/s", photos=len(photos))


# The convolutions


def forward(settings: Settings) -> Figures:
    """Averaged features of photos in the host's memory, and of photos on the device; forms and batches beside one another."""
    import jax

    from catdog_jax.backbone import accelerators, weights
    from catdog_jax.features import extractor as extractors

    forms = {"direct-gpu": accelerators.GPU, "direct-tpu": accelerators.TPU}
    forms["direct-gpu, pooled by reshape"] = accelerators.GPU._replace(pool=accelerators.PLAIN.pool)
    forms["direct-gpu, three channels"] = accelerators.GPU._replace(channels=3)
    forms["direct-gpu, kernels HWIO"] = accelerators.GPU._replace(kernel="HWIO")
    for name, form in forms.items():
        extractors.ALGORITHMS[name] = extractors.laid_out(form, "")
    pretrained = weights.random()
    usual = settings.size(256, 2)
    sizes = [usual] if settings.tiny else [usual, 128, 512, 64, 1024]
    wanted = [("direct-gpu", usual), ("direct", usual), *((name, usual) for name in list(forms)[1:])]
    wanted += [("direct-gpu", size) for size in sizes[1:]]
    precision = "float32" if settings.tiny else "bfloat16"
    for conv, size in wanted[: settings.size(len(wanted), 2)]:
        extractor = extractors.Extractor(pretrained, conv=conv, precision=precision, batch_size=size)
        photos = photos_of(extractor.batch_size)
        there = jax.device_put(photos, extractor._by_photo)

        def resident(extractor: Any = extractor, there: Any = there) -> float:
            jax.block_until_ready([extractor._compute(extractor._params, there) for _ in range(4)])
            return 4 * len(there)

        start = time.perf_counter()
        extractor(photos)
        compiled = time.perf_counter() - start
        value = rate(resident, settings.turn)
        yield figure(
            f"{conv}, on the device", value, "photos/s", batch=size, precision=precision, first_seconds=compiled
        )
        if conv == "direct-gpu":

            def sent(extractor: Any = extractor, photos: Any = photos) -> float:
                jax.block_until_ready([extractor.dispatch(photos) for _ in range(4)])
                return 4 * len(photos)

            yield figure(
                f"{conv}, from the host", rate(sent, settings.turn), "photos/s", batch=size, precision=precision
            )
    if not settings.tiny:
        exact = extractors.Extractor(pretrained, conv="direct-gpu", precision="float32", batch_size=usual)
        photos = photos_of(exact.batch_size)

        def exactly() -> float:
            jax.block_until_ready([exact.dispatch(photos) for _ in range(2)])
            return 2 * len(photos)

        yield figure(
            "direct-gpu, from the host", rate(exactly, settings.turn), "photos/s", batch=usual, precision="float32"
        )


def torch_forward(settings: Settings, compiled: bool = False) -> Figures:
    """PyTorch in bfloat16, channels last, from pinned memory and on the device; eager or compiled."""
    import torch

    from catdog_jax.backbone import weights
    from scripts.benchmarks import contestants

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "float32" if device == "cpu" else "bfloat16"
    torch.backends.cudnn.benchmark = True
    model = contestants.torch_backbone(torch, dtype, device, weights.random())
    mode = "eager"
    if compiled:
        mode, model = "max-autotune" if device == "cuda" else "default", model
        model = torch.compile(model, mode=mode)
    for size in [settings.size(256, 2), *([] if settings.tiny or compiled else [512])]:
        photos = photos_of(size)
        there = torch.from_numpy(photos).to(device)

        def resident(there: Any = there, size: int = size) -> float:
            with torch.inference_mode():
                results = [model(there).clone() for _ in range(4)]
                [result.cpu() for result in results]
            return 4 * size

        yield figure(
            f"PyTorch {mode}, on the device", rate(resident, settings.turn), "photos/s", batch=size, precision=dtype
        )
        work = contestants.torch_from_host(torch, model, photos, device)
        yield figure(
            f"PyTorch {mode}, from the host", rate(work, settings.turn), "photos/s", batch=size, precision=dtype
        )


# From files


def jpegs(folder: Path, count: int) -> list[Path]:
    """JPEG files of noise that is smooth, 500 × 375 pixels, about as large as photos: 64 different ones, linked."""
    from PIL import Image

    rng = np.random.default_rng(0)
    files = []
    for i in range(count):
        path = folder / f"{i:06d}.jpg"
        if i < 64:
            small = Image.fromarray(rng.integers(0, 256, (47, 63, 3), np.uint8))
            small.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=88)
        else:
            os.link(files[i % 64], path)
        files.append(path)
    return files


def decode_one(path: Path) -> int:
    stand_ins.install()  # a process that is not forked has none
    from catdog_jax.photos import decoding
    from catdog_jax.photos.recipe import DEFAULT

    return len(decoding.decode(decoding.read_photo(path), DEFAULT))


def decode(settings: Settings) -> Figures:
    """Reading, decoding and resizing in more and more threads, then processes."""
    cores = os.cpu_count() or 1
    counts = sorted({1, 2, 4, 8, 16, cores} & set(range(1, cores + 1)))
    with tempfile.TemporaryDirectory() as folder:
        files = jpegs(Path(folder), settings.size(1024, 4))
        makers: dict[str, Callable[[int], Executor]] = {"threads": ThreadPoolExecutor, "processes": ProcessPoolExecutor}
        for kind, make in makers.items():
            for workers in counts if kind == "threads" else counts[-1:]:
                with make(workers) as pool:
                    work = functools.partial(_decoded, pool, files)
                    yield figure(f"decoding in {kind}", rate(work, settings.turn / 2), "photos/s", workers=workers)


def _decoded(pool: Executor, files: list[Path]) -> float:
    return sum(1 for _ in pool.map(decode_one, files, chunksize=16))


def extract(settings: Settings) -> Figures:
    """JPEG files to features on disk by `extract`, twice: the first one compiles."""
    from catdog_jax.backbone import weights
    from catdog_jax.features.extraction import extract as run
    from catdog_jax.photos import sources

    count = settings.size(8192, 12)
    with tempfile.TemporaryDirectory() as folder:
        for i, path in enumerate(jpegs(Path(folder), count)):
            split = ("train", "train", "validation", "test")[i // 2 % 4]
            place = Path(folder, "photos", split, ("cats", "dogs")[i % 2], path.name)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, place)
        photos = sources.load_photos(str(Path(folder, "photos")))
        for turn in ("first", "second"):
            start = time.perf_counter()
            run(photos, Path(folder, turn), weights=weights.random())
            yield figure(f"extract, {turn} time", count / (time.perf_counter() - start), "photos/s", photos=count)


# Heads


def rows_of(settings: Settings) -> dict[str, Any]:
    """Rows of noise with something to learn in them, by split, as float16 features are kept."""
    rng = np.random.default_rng(0)
    columns, found = 1024, {}
    for split, count in (("train", settings.size(15_000, 80)), ("validation", settings.size(2_000, 40))):
        x = rng.standard_normal((count, columns), np.float32)
        found[split] = x.astype(np.float16), (x[:, :8].sum(axis=1) + rng.standard_normal(count) > 0).astype(np.float32)
    return found


def loader(settings: Settings) -> Callable[[str, str], Any]:
    """The loaders of a split with the features of a pooling, on the device."""
    import jax.numpy as jnp

    from catdog_jax.heads.rows import Chunk

    kept = {split: Chunk(*map(jnp.asarray, pair)) for split, pair in rows_of(settings).items()}
    columns = {"avg": slice(0, 512), "max": slice(512, None), "avg+max": slice(None)}

    def load(split: str, pool: str) -> Any:
        part = Chunk(kept[split].x[:, columns[str(pool)]], kept[split].y)
        return [lambda: part]

    return load


def fit(settings: Settings) -> Figures:
    """The default head on 15,000 rows; the first time compiles."""
    from catdog_jax.config import Recipe
    from catdog_jax.heads import search

    epochs = settings.size(40, 1)
    load = loader(settings)
    for turn in ("first", "second"):
        start = time.perf_counter()
        search.fit_one(dataclasses.replace(Recipe(), epochs=epochs, patience=epochs), load, seed=0)
        seconds = time.perf_counter() - start
        yield figure(f"fit, {turn} time", epochs / seconds, "epochs/s", epochs=epochs, seconds=seconds)


def sweep(settings: Settings) -> Figures:
    """48 heads on 15,000 rows, as `catdog train --sweep 48` draws them; the first time compiles."""
    from catdog_jax.config import Recipe
    from catdog_jax.heads import search, steps

    base = Recipe() if not settings.tiny else dataclasses.replace(Recipe(), epochs=1, hidden=(16,))
    recipes = search.draw(base, search.POOLS, settings.size(48, 3), 0, lambda _: False, 15_000)
    load = loader(settings)
    for turn in ("first", "second")[: settings.size(2, 1)]:
        start = time.perf_counter()
        search.search(recipes, load, seed=0)
        seconds = time.perf_counter() - start
        programs = steps.run_chunk._cache_size()
        yield figure(f"sweep, {turn} time", len(recipes) / seconds, "heads/s", seconds=seconds, programs=programs)


def evaluate(settings: Settings) -> Figures:
    """The probabilities of a head on cached features."""
    from catdog_jax.heads import head

    rng = np.random.default_rng(0)
    width = settings.size(1024, 16)
    shapes = {"dense_0": (1024, width), head.OUTPUT: (width, 1)}
    params = {
        name: {"kernel": rng.standard_normal(shape, np.float32) / 32, "bias": np.zeros(shape[1], np.float32)}
        for name, shape in shapes.items()
    }
    x = rng.standard_normal((settings.size(20_000, 64), 1024), np.float32).astype(np.float16)

    def work() -> float:
        head.probabilities(params, x)
        return len(x)

    yield figure("probabilities of a head", rate(work, settings.turn), "photos/s", rows=len(x))


SECTIONS: dict[str, Callable[[Settings], Figures]] = {
    "about": about,
    "sanity": sanity,
    "limits": limits,
    "forward": forward,
    "torch": torch_forward,
    "extract": extract,
    "fit": fit,
    "sweep": sweep,
    "decode": decode,
    "evaluate": evaluate,
    "torch compiled": functools.partial(torch_forward, compiled=True),
}


def main() -> None:
    """Prints the figures of a section, each as soon as it is there."""
    parser = argparse.ArgumentParser(prog="python -m scripts.benchmarks.sections")
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--turn", type=float, default=2.0)
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    stand_ins.install()
    from catdog_jax import jax_environment

    end = time.monotonic() + asked.seconds
    jax_environment.prepare()
    try:
        for row in SECTIONS[asked.section](Settings(asked.turn, asked.tiny)):
            print(json.dumps(row), flush=True)
            if time.monotonic() > end:
                break
    except ModuleNotFoundError as error:
        print(json.dumps({"absent": f"{error.name} is not installed"}), flush=True)


if __name__ == "__main__":
    main()
