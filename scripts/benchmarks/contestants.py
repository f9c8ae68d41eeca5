"""The sides of the contests of benchmark.py, each in a process of its own, so that no framework's threads disturb another.

    python -m scripts.benchmarks.contestants CONTEST NAME '{"seconds": 10, ...}'

A contestant prepares itself (imports, compiles, warms up), answers one line of JSON with its
versions, and then, for every line on its standard input, measures once and answers {"rate": ...},
higher is better. One whose packages are missing answers {"absent": "why"}."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from scripts.benchmarks import engines

Settings = dict[str, Any]
Measure = Callable[[], float]
BATCH = 16  # photos at once on a CPU, for all
GPU_BATCH = 256
CLASSES = ("cats", "dogs")


def _photos(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), np.uint8)


def _rate(work: Callable[[], int], seconds: float) -> float:
    """Units a second of work that returns how many units it did, over at least `seconds`."""
    start, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds or not done:
        done += work()
    return done / elapsed


# Forward: uint8 photos in memory -> averaged features in memory


class Absent(Exception):
    """Why a side does not take part on this machine."""


def forward_ours(settings: Settings, conv: str = "auto", precision: str = "auto") -> Measure:
    """`extractor.Extractor`, as `catdog extract` uses it: two batches in flight."""
    import jax

    from catdog_jax.backbone import weights
    from catdog_jax.features.extractor import ALGORITHMS, Extractor

    algorithm = ALGORITHMS.get(conv)
    if algorithm and algorithm.only_on not in ("", jax.default_backend()):
        raise Absent(f"it is written for a {algorithm.only_on}")
    if algorithm and (lacking := algorithm.lacks()):
        raise Absent(lacking)
    extractor = Extractor(weights.load(), conv=conv, precision=precision)
    photos = _photos(extractor.batch_size)

    def work() -> int:
        results = [extractor.dispatch(photos) for _ in range(2)]
        jax.block_until_ready(results)
        return 2 * len(photos)

    work()
    return lambda: _rate(work, settings["seconds"])


def forward_torch(settings: Settings, dtype: str = "float32", compiled: bool = False) -> Measure:
    """PyTorch in channels-last memory format, eager or compiled; on a GPU two batches in flight, as for ours."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True  # it tries cuDNN's algorithms, as XLA does
    model = torch_backbone(torch, dtype, device)
    if compiled:
        model = torch.compile(model, mode="max-autotune-no-cudagraphs" if device == "cuda" else "default")
    work = torch_from_host(torch, model, _photos(BATCH if device == "cpu" else GPU_BATCH), device)
    work()
    work()
    return lambda: _rate(work, settings["seconds"])


def torch_from_host(torch: Any, model: Any, photos: np.ndarray, device: str) -> Callable[[], int]:
    """Work on two batches from the host's memory, pinned on a GPU so that it is copied while the card computes."""
    waiting = torch.from_numpy(photos)
    waiting = waiting.pin_memory() if device == "cuda" else waiting
    batches = 2 if device == "cuda" else 1

    def work() -> int:
        with torch.inference_mode():
            results = [model(waiting.to(device, non_blocking=True)).clone() for _ in range(batches)]
            for result in results:
                result.cpu()
        return batches * len(photos)

    return work


def torch_backbone(torch: Any, dtype: str, device: str, loaded: Any = None) -> Any:
    """VGG16's convolutions in PyTorch: uint8 [N, 224, 224, 3] -> float32 [N, 512]."""
    from catdog_jax.backbone import vgg16, weights

    loaded = loaded or weights.load()

    class Backbone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers: list[Any] = []
            for layer in vgg16.LAYERS:
                conv = torch.nn.Conv2d(layer.inputs, layer.outputs, 3, padding=1)
                conv.weight.data = torch.tensor(loaded.params[layer.name]["kernel"].transpose(3, 2, 0, 1).copy())
                conv.bias.data = torch.tensor(np.array(loaded.params[layer.name]["bias"]))
                layers += [conv, torch.nn.ReLU(inplace=True), *([torch.nn.MaxPool2d(2)] if layer.pool else [])]
            self.layers = torch.nn.Sequential(*layers)
            self.mean = torch.nn.Parameter(torch.tensor(vgg16.MEAN[loaded.mode]), False)
            self.std = torch.nn.Parameter(torch.tensor(vgg16.STD[loaded.mode]), False)

        def forward(self, photos: Any) -> Any:
            x = (photos.float() - self.mean) / self.std
            x = x.permute(0, 3, 1, 2).to(getattr(torch, dtype), memory_format=torch.channels_last)
            return self.layers(x).float().mean(dim=(2, 3))

    model = Backbone().to(device).eval()
    model.layers.to(getattr(torch, dtype), memory_format=torch.channels_last)
    return model


def forward_onnxruntime(settings: Settings) -> Measure:
    """The exported float32 graph in ONNX Runtime; the linear head on top costs nothing."""
    import onnxruntime

    from catdog_jax.backbone import weights
    from catdog_jax.backbone.pooling import Pool
    from catdog_jax.deployment import graph
    from catdog_jax.heads import head
    from catdog_jax.photos.fingerprint import Fingerprint

    loaded = weights.load()
    output = {head.OUTPUT: {"kernel": np.zeros((512, 1), np.float32), "bias": np.zeros(1, np.float32)}}
    fitted = head.FittedHead(Pool.AVG, output, CLASSES, Fingerprint(), {})
    model = graph.build(loaded.params, loaded.mode, fitted, {}).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=onnxruntime.get_available_providers()[:1])
    photos = _photos(BATCH)

    def work() -> int:
        session.run(["probability"], {"image": photos})
        return len(photos)

    work()
    return lambda: _rate(work, settings["seconds"])


def forward_keras(settings: Settings) -> Measure:
    """keras.applications.VGG16 without its top, on TensorFlow."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    from catdog_jax.backbone import vgg16, weights

    loaded = weights.load()
    model = keras.applications.VGG16(weights=None, include_top=False, pooling="avg", input_shape=(224, 224, 3))
    for layer in vgg16.LAYERS:
        model.get_layer(layer.name).set_weights([loaded.params[layer.name][part] for part in ("kernel", "bias")])
    photos = _photos(BATCH)
    mean, std = (np.array(table[loaded.mode], np.float32) for table in (vgg16.MEAN, vgg16.STD))

    def work() -> int:
        model.predict_on_batch((photos - mean) / std)
        return len(photos)

    work()
    work()
    return lambda: _rate(work, settings["seconds"])


# Extract: JPEG files -> features on disk


def _files(settings: Settings) -> list[Path]:
    return [Path(path) for path in settings["files"]]


def extract_ours(settings: Settings) -> Measure:
    """What `catdog extract` does once it has started: decode ahead, compute, write shards behind."""
    import functools

    from catdog_jax.backbone import weights
    from catdog_jax.config import ExtractConfig
    from catdog_jax.features import batches
    from catdog_jax.features import shards as shard_files
    from catdog_jax.features.extractor import Extractor
    from catdog_jax.photos import decoding
    from catdog_jax.photos.fingerprint import Fingerprint
    from catdog_jax.photos.recipe import DEFAULT
    from catdog_jax.photos.sources import Record

    extractor = Extractor(weights.load())
    extractor(_photos(1))
    files = _files(settings)
    records = tuple(
        Record(str(i), i % 2, "train", 0, functools.partial(decoding.read_photo, f)) for i, f in enumerate(files)
    )
    size = ExtractConfig().shard_size
    shards = [batches.Shard(f"train-{i:05d}-of-00001", records[i : i + size]) for i in range(0, len(records), size)]
    described = Fingerprint(dtype="float16", pool="avg", views=("original",))

    def work() -> int:
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as writer:
            for shard, rows in batches.compute_shards(shards, extractor, DEFAULT, None, lambda _: None):
                writer.submit(shard_files.write_shard, Path(folder), shard.name, rows, described).result()
        return len(records)

    return lambda: _rate(work, 0)


def extract_decode(settings: Settings) -> Measure:
    """Reading, decoding and resizing the files in threads, and nothing else."""
    from catdog_jax.photos import decoding
    from catdog_jax.photos.recipe import DEFAULT

    files = _files(settings)

    def work() -> int:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return sum(1 for _ in pool.map(lambda path: decoding.decode(decoding.read_photo(path), DEFAULT), files))

    return lambda: _rate(work, 1)


def extract_torch(settings: Settings) -> Measure:
    """PyTorch's DataLoader with a worker a core, over the same decode gate, into the channels-last network."""
    import torch

    from catdog_jax.photos import decoding
    from catdog_jax.photos.recipe import DEFAULT

    files = _files(settings)

    class Photos(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> np.ndarray:
            return decoding.decode(decoding.read_photo(files[index]), DEFAULT)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    model = torch_backbone(torch, "float32" if device == "cpu" else "bfloat16", device)
    batch = BATCH if device == "cpu" else GPU_BATCH
    on_gpu = device == "cuda"
    loader = torch.utils.data.DataLoader(
        Photos(), batch, num_workers=os.cpu_count() or 1, persistent_workers=True, pin_memory=on_gpu
    )

    def work() -> int:
        with torch.inference_mode(), tempfile.NamedTemporaryFile(suffix=".npy") as file:
            rows = [model(photos.to(device, non_blocking=on_gpu)).cpu().numpy() for photos in loader]
            np.save(file, np.concatenate(rows).astype(np.float16))
        return len(files)

    with torch.inference_mode():
        model(torch.from_numpy(_photos(batch)).to(device))
    next(iter(loader))
    return lambda: _rate(work, 0)


# Fit: a head on cached rows, a validation pass after every epoch

ROWS, VALIDATION_ROWS, COLUMNS = 15_000, 2_000, 1024
EPOCHS = 3


def _rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, COLUMNS), np.float32)
    return x, (x[:, :8].sum(axis=1) + rng.standard_normal(count) > 0).astype(np.float32)


def _recipe(linear: bool) -> Any:
    import dataclasses

    from catdog_jax.config import PRESETS

    recipe = dataclasses.replace(PRESETS["default"], epochs=EPOCHS, patience=EPOCHS)
    return dataclasses.replace(recipe, hidden=()) if linear else recipe


def fit_ours(settings: Settings, linear: bool = False) -> Measure:
    """`fitting.fit`, as `catdog train` calls it."""
    import jax.numpy as jnp

    from catdog_jax.heads import fitting, rows

    training, validation = (rows.Chunk(*map(jnp.asarray, _rows(*of))) for of in ((ROWS, 0), (VALIDATION_ROWS, 1)))
    scaling = rows.measure([lambda: training])

    def work() -> int:
        fitting.fit(_recipe(linear), [lambda: training], [lambda: validation], scaling, 0)
        return EPOCHS

    work()
    return lambda: _rate(work, 0)


def sweep_ours(settings: Settings, heads: int) -> Measure:
    """`fitting.fit_many`: linear heads of different learning rates at once."""
    import dataclasses

    import jax.numpy as jnp

    from catdog_jax.heads import fitting, rows

    training, validation = (rows.Chunk(*map(jnp.asarray, _rows(*of))) for of in ((ROWS, 0), (VALIDATION_ROWS, 1)))
    scaling = rows.measure([lambda: training])
    base = dataclasses.replace(_recipe(linear=True), dropout=0.0)
    recipes = [dataclasses.replace(base, learning_rate=base.learning_rate * (1 + i / heads)) for i in range(heads)]

    def work() -> int:
        fitting.fit_many(recipes, [lambda: training], [lambda: validation], scaling, 0)
        return EPOCHS * heads

    work()
    return lambda: _rate(work, 1)


def fit_keras(settings: Settings, linear: bool = False) -> Measure:
    """Keras' `fit` of the same head, batch and schedule, on TensorFlow."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    recipe = _recipe(linear)
    (x, y), validation = _rows(ROWS, 0), _rows(VALIDATION_ROWS, 1)
    l2 = keras.regularizers.L2(recipe.l2)
    layers: list[Any] = [keras.Input((COLUMNS,))]
    for width in recipe.hidden:
        layers += [keras.layers.Dense(width, "relu", kernel_regularizer=l2), keras.layers.Dropout(recipe.dropout)]
    if not recipe.hidden:
        layers.append(keras.layers.Dropout(recipe.dropout))
    model = keras.Sequential([*layers, keras.layers.Dense(1, kernel_regularizer=l2)])
    schedule = keras.optimizers.schedules.ExponentialDecay(
        recipe.learning_rate, -(-ROWS // recipe.batch_size), recipe.decay_rate
    )
    model.compile(
        keras.optimizers.Adam(schedule), keras.losses.BinaryCrossentropy(from_logits=True), metrics=["accuracy"]
    )

    def work() -> int:
        model.fit(x, y, batch_size=recipe.batch_size, epochs=EPOCHS, validation_data=validation, verbose=0)
        return EPOCHS

    work()
    return lambda: _rate(work, 0)


def fit_torch(settings: Settings, linear: bool = False) -> Measure:
    """The usual loop in PyTorch: shuffled batches by index, Adam, the penalty in the loss."""
    import torch

    recipe = _recipe(linear)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    (x, y), (vx, vy) = (
        [torch.from_numpy(one).to(device) for one in _rows(*of)] for of in ((ROWS, 0), (VALIDATION_ROWS, 1))
    )
    layers: list[Any] = []
    for inputs, width in zip((COLUMNS, *recipe.hidden), recipe.hidden, strict=False):
        layers += [torch.nn.Linear(inputs, width), torch.nn.ReLU(), torch.nn.Dropout(recipe.dropout)]
    layers += [] if recipe.hidden else [torch.nn.Dropout(recipe.dropout)]
    model = torch.nn.Sequential(*layers, torch.nn.Linear((COLUMNS, *recipe.hidden)[-1], 1)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, recipe.decay_rate ** (recipe.batch_size / ROWS))
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    kernels = [one.weight for one in model if isinstance(one, torch.nn.Linear)]

    def work() -> int:
        for _ in range(EPOCHS):
            model.train()
            for index in torch.randperm(ROWS, device=device).split(recipe.batch_size):
                optimizer.zero_grad()
                penalty = recipe.l2 * sum((kernel**2).sum() for kernel in kernels)
                (loss(model(x[index])[:, 0], y[index]) + penalty).backward()
                optimizer.step()
                schedule.step()
            model.eval()
            with torch.inference_mode():
                loss(model(vx)[:, 0], vy).item()
        return EPOCHS

    work()
    return lambda: _rate(work, 0)


# Limits of the machine


def limits_matmul(settings: Settings) -> Measure:
    """FLOP/s of a large matrix product in the type that the convolutions compute in."""
    import jax
    import jax.numpy as jnp

    on_cpu = jax.default_backend() == "cpu"
    size, dtype = (2048, jnp.float32) if on_cpu else (8192, jnp.bfloat16)
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)  # a GPU multiplies ones faster
    product = jax.jit(lambda a: a @ a)

    def work() -> int:
        results = [product(a) for _ in range(4)]
        jax.block_until_ready(results)
        return 4 * 2 * size**3

    work()
    return lambda: _rate(work, settings["seconds"] / 4)


def limits_copy(settings: Settings) -> Measure:
    """Bytes a second from the host to the device, of uint8 photos."""
    import jax

    photos = _photos(GPU_BATCH)

    def work() -> int:
        jax.block_until_ready([jax.device_put(photos, may_alias=False) for _ in range(2)])
        return 2 * photos.nbytes

    work()
    return lambda: _rate(work, settings["seconds"] / 4)


def main() -> Iterator[str]:
    """Runs the contestant that the command line names; yields its answers."""
    contest, name, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    make = CONTESTS[contest][name]
    try:
        measure = make(settings)
    except Absent as error:
        yield json.dumps({"absent": str(error)})
        return
    except ImportError as error:
        yield json.dumps({"absent": f"{error.name or error} is not installed"})
        return
    yield json.dumps({"ready": True})
    for _ in sys.stdin:
        yield json.dumps({"rate": measure()})


CONTESTS: dict[str, dict[str, Callable[[Settings], Measure]]] = {
    "forward": {
        "catdog_jax": forward_ours,
        "catdog_jax bfloat16": lambda settings: forward_ours(settings, "amx", "bfloat16"),
        "catdog_jax, without a compiler": lambda settings: forward_ours(settings, "winograd"),
        "catdog_jax, direct convolution": lambda settings: forward_ours(settings, "direct"),
        "PyTorch": forward_torch,
        "PyTorch compiled": lambda settings: forward_torch(settings, compiled=True),
        "PyTorch bfloat16": lambda settings: forward_torch(settings, "bfloat16"),
        "PyTorch bfloat16 compiled": lambda settings: forward_torch(settings, "bfloat16", compiled=True),
        "ONNX Runtime": forward_onnxruntime,
        "Keras on TensorFlow": forward_keras,
        "ncnn": lambda settings: engines.on_each_core(engines.ncnn, "float32", settings["seconds"]),
        "ncnn bfloat16": lambda settings: engines.on_each_core(engines.ncnn, "bfloat16", settings["seconds"]),
        "MNN": lambda settings: engines.on_each_core(engines.mnn, "float32", settings["seconds"]),
        "OpenVINO": lambda settings: engines.openvino("float32", settings["seconds"]),
        "OpenVINO bfloat16": lambda settings: engines.openvino("bfloat16", settings["seconds"]),
    },
    "extract": {
        "catdog_jax": extract_ours,
        "catdog_jax, forward alone": forward_ours,
        "decoding alone": extract_decode,
        "PyTorch with DataLoader": extract_torch,
    },
    "fit": {"catdog_jax": fit_ours, "PyTorch": fit_torch, "Keras on TensorFlow": fit_keras},
    "fit linear": {
        "catdog_jax": lambda settings: fit_ours(settings, linear=True),
        "PyTorch": lambda settings: fit_torch(settings, linear=True),
        "Keras on TensorFlow": lambda settings: fit_keras(settings, linear=True),
    },
    "sweep": {
        "64 linear heads at once": lambda settings: sweep_ours(settings, 64),
        "1 linear head": lambda settings: sweep_ours(settings, 1),
    },
    "limits": {"matrix product, FLOP/s": limits_matmul, "copy to the device, bytes/s": limits_copy},
}

if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    from catdog_jax import jax_environment

    jax_environment.prepare()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print on stdout is no answer
    for answer in main():
        print(answer, file=answers, flush=True)
