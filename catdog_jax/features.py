"""Photos -> jitted batches through the frozen convolutions -> a feature cache (see cache.py for the files).

Decoding threads run ahead of the device, batches of one static shape are in flight on it, and finished shards are written
behind it, so that none of the three waits for another for long.
"""

import collections
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.text import Text

from catdog_jax import cache, data, exclusion, images, shares, storage, vgg16, weights, winograd
from catdog_jax.ahead import Decoded, decoded
from catdog_jax.cache import FeatureCache, Rows
from catdog_jax.config import ExtractConfig, Pool
from catdog_jax.console import console, progress_bar
from catdog_jax.data import Dataset, Record
from catdog_jax.errors import CatdogError, UsageError

MAX_SKIPPED_SHARE = 0.05  # of a split; above it the data set, not a photo, is at fault
_IN_FLIGHT = 2  # batches dispatched before the first is waited for, so that the device never waits for the host
_VIEWS: dict[str, Callable[[jax.Array], jax.Array]] = {"original": lambda x: x, "mirror": lambda x: x[:, :, ::-1]}


class Extractor:
    """The frozen convolutions as a jitted function of uint8 photos, on all local devices.

    Attributes:
      batch_size: photos a dispatch takes, over all devices.
      precision: the type that is computed in, "float32" or "bfloat16".
      conv: the algorithm, "direct" or "winograd".
    """

    def __init__(
        self,
        pretrained: weights.Weights,
        pool: Pool = "avg",
        views: Sequence[str] = ("original",),
        precision: str = "auto",
        conv: str = "auto",
        batch_size: int | None = None,
    ):
        """Puts the weights on the devices. See `ExtractConfig` for the options; `batch_size` counts one device's photos.

        Where the command line has made each CPU core a device, each computes its photos alone on one thread: without the
        barriers between threads of one computation, two cores extract about one and a half times as fast.

        Raises:
          UsageError: Winograd was asked for in bfloat16.
        """
        devices = jax.local_devices()
        on_cpu = devices[0].platform == "cpu"
        self.precision = ("float32" if on_cpu else "bfloat16") if precision == "auto" else precision
        if conv == "auto":
            conv = "winograd" if on_cpu and self.precision == "float32" else "direct"
        if conv == "winograd" and self.precision != "float32":
            raise UsageError(f"--conv winograd: expected --precision float32, found {self.precision}. Choose one of the two.")
        self.conv = conv
        self.batch_size = (batch_size or (8 if on_cpu else 256)) * len(devices)
        mesh = Mesh(np.array(devices), ("batch",))
        self._by_photo = NamedSharding(mesh, PartitionSpec("batch"))
        params = winograd.transform_kernels(pretrained.params) if conv == "winograd" else pretrained.params
        self._params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        dtype = jnp.dtype(self.precision)

        def compute(params: vgg16.Params, photos: jax.Array) -> jax.Array:
            def features(view: str) -> jax.Array:
                x = vgg16.normalise(_VIEWS[view](photos), pretrained.mode, dtype)
                cells = winograd.forward(params, x) if conv == "winograd" else vgg16.forward(params, x, dtype)
                cells = cells.astype(jnp.float32)
                return cells if pool == "none" else vgg16.pool_cells(cells, pool)

            return jnp.stack([features(view) for view in views], axis=1)

        by_photo, alike = PartitionSpec("batch"), PartitionSpec()
        on_each_device = jax.shard_map(compute, mesh=mesh, in_specs=(alike, by_photo), out_specs=by_photo)
        options = {"xla_cpu_multi_thread_eigen": False} if on_cpu and len(devices) > 1 else None
        self._compute = jax.jit(on_each_device, compiler_options=options)

    def dispatch(self, photos: np.ndarray) -> jax.Array:
        """Starts computing one padded batch and returns at once.

        Args:
          photos: uint8 [batch_size, 224, 224, 3], RGB.

        Returns:
          float32 [batch_size, views, 512], or as `pool` has it; [batch_size, views, 7, 7, 512] for "none".
        """
        return self._compute(self._params, jax.device_put(photos, self._by_photo))

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        """Features of any number of photos: uint8 [N, 224, 224, 3] -> float32 [N, columns], of the first view."""
        parts = []
        for start in range(0, len(photos), self.batch_size):
            part = photos[start : start + self.batch_size]
            result = np.asarray(self.dispatch(_padded(part, self.batch_size))[: len(part), 0])
            parts.append(result.reshape(len(part), -1))
        return np.concatenate(parts)


def _padded(photos: np.ndarray, size: int) -> np.ndarray:
    if len(photos) == size:
        return photos
    return np.concatenate([photos, np.zeros((size - len(photos), *photos.shape[1:]), photos.dtype)])


@dataclass(frozen=True)
class Shard:
    """A fixed part of a split: its file name's stem and the photos that belong into it."""

    name: str
    records: tuple[Record, ...]


def plan(dataset: Dataset, shard_size: int) -> list[Shard]:
    """Cuts every split into shards. The plan depends on the inputs alone, so that any process can take any shard."""
    shards = []
    for split in data.SPLITS:
        records = dataset.split(split)
        count = -(-len(records) // shard_size)
        shards += [
            Shard(f"{split}-{i:05d}-of-{count:05d}", records[i * shard_size : (i + 1) * shard_size]) for i in range(count)
        ]
    return shards


def fingerprint(config: ExtractConfig, dataset: Dataset, pretrained: weights.Weights, precision: str) -> dict[str, Any]:
    """Everything that decides the bytes of a cache. The convolution algorithm does not: it rounds far below float16."""
    inputs = [[record.id, record.label, record.split, record.size] for record in dataset.records]
    return {
        "weights_sha256": pretrained.sha256,
        "preprocessing": pretrained.mode,
        "preprocessing_version": vgg16.PREPROCESSING_VERSION,
        "image": images.RECIPE,
        "pool": config.pool,
        "views": config.views.split(","),
        "dtype": config.dtype,
        "precision": precision,
        "shard_size": config.shard_size,
        "classes": list(dataset.classes),
        "inputs": len(inputs),
        "inputs_sha256": storage.sha256_of_json(inputs),
    }


def extract(config: ExtractConfig) -> FeatureCache | None:
    """Extracts the features of every photo, or of those that an interrupted run left.

    Returns:
      The finished cache; None where this process has finished its share and others have not.

    Raises:
      CatdogError: no usable data or weights; the directory holds features of another fingerprint (the field is named); more
        than 5 % of a split cannot be decoded; a file cannot be written.
      UsageError: an option is out of its range.
    """
    if any(value is not None and value < 1 for value in (config.shard_size, config.batch_size, config.workers)):
        raise UsageError("--shard-size, --batch-size and --workers: expected 1 or more, found less. Leave them out.")
    index, count = shares.share(config)
    config.out.exists()  # a bucket out of reach is told before the work begins
    dataset = exclusion.without(data.load(data.locate(config.data, config.data_dir)), config.exclude)
    pretrained = weights.load(config.weights, config.preprocessing)
    views = config.views.split(",")
    extractor = Extractor(pretrained, config.pool, views, config.precision, config.conv, config.batch_size)
    prints = fingerprint(config, dataset, pretrained, extractor.precision)
    shards = plan(dataset, config.shard_size)
    with shares.claim(config.out, index, count):
        _extract_share(config, dataset, extractor, prints, shards[index::count])
        there = cache.with_sidecar(config.out)
        missing = [shard.name for shard in shards if shard.name not in there]
        if missing:
            shares.report_missing(missing, len(shards))
            return None
        check_readable(dataset, {shard.name: cache.skipped(config.out, shard.name) for shard in shards})
        cache.write_manifest(config.out, dataset.source, [shard.name for shard in shards], prints)
    finished = FeatureCache.open(config.out)
    _report(finished)
    return finished


def _extract_share(
    config: ExtractConfig, dataset: Dataset, extractor: Extractor, prints: dict[str, Any], shards: Sequence[Shard]
) -> None:
    """Computes and writes those of `shards` that are missing or damaged."""
    total = sum(len(shard.records) for shard in shards)
    finished = cache.finished(config.out, [shard.name for shard in shards], prints)
    pending = [shard for shard in shards if shard.name not in finished]
    remaining = sum(len(shard.records) for shard in pending)
    skipped = {name: cache.skipped(config.out, name) for name in finished}
    with progress_bar("photos") as progress, ThreadPoolExecutor(1) as writer:
        task = progress.add_task("extract", total=total, completed=total - remaining)
        commits = collections.deque[Future[None]]()
        for shard, rows in compute_shards(pending, extractor, config.workers, lambda photos: progress.advance(task, photos)):
            skipped[shard.name] = rows.skipped
            commits.append(writer.submit(cache.write_shard, config.out, shard.name, rows, prints))
            while len(commits) > 1:  # at most one shard waits to be written, so that memory stays bounded
                commits.popleft().result()
            check_readable(dataset, skipped)
        for commit in commits:
            commit.result()
    check_readable(dataset, skipped)


def _report(finished: FeatureCache) -> None:
    for split in data.SPLITS:
        skipped = finished.skipped(split)
        console.print(f"{split}: {finished.rows(split):,} photos" + (f", {len(skipped)} skipped" if skipped else ""))
        for item in skipped[:10]:
            console.print(Text(f"  {item['id']!r}: {item['reason']}", "yellow"), soft_wrap=True)
        if len(skipped) > 10:
            console.print(f"  … the others are listed in {finished.path / 'manifest.json'}", soft_wrap=True, markup=False)


@dataclass(frozen=True)
class _Batch:
    """Photos of one shard on their way through the device.

    Attributes:
      shard: where they belong.
      rows: what is known of the shard so far.
      photos: how many photos were decoded for it, readable or not.
      readable: how many of them are in the batch.
      features: what the device computes; None where no photo was readable.
      last: whether the shard is complete with it.
    """

    shard: Shard
    rows: Rows
    photos: int
    readable: int
    features: jax.Array | None
    last: bool


def compute_shards(
    shards: Sequence[Shard], extractor: Extractor, workers: int | None, advance: Callable[[int], None]
) -> Iterator[tuple[Shard, Rows]]:
    """Yields each shard with its rows, in order.

    A batch never mixes shards, so a shard's bytes do not depend on which others are computed in the same run.

    Args:
      shards: what to compute.
      extractor: computes it.
      workers: decoding threads; None for one a core.
      advance: is told how many further photos are done.
    """
    records = (record for shard in shards for record in shard.records)
    photos = decoded(records, workers, (_IN_FLIGHT + 1) * extractor.batch_size)
    in_flight: collections.deque[_Batch] = collections.deque()
    for batch in itertools.chain(_dispatch(shards, photos, extractor), [None] * _IN_FLIGHT):
        if batch is not None:
            in_flight.append(batch)
        if in_flight and (batch is None or len(in_flight) > _IN_FLIGHT):
            done = in_flight.popleft()
            if done.features is not None:
                done.rows.features.append(np.asarray(done.features)[: done.readable])
            advance(done.photos)
            if done.last:
                yield done.shard, done.rows


def _dispatch(shards: Sequence[Shard], photos: Iterator[Decoded], extractor: Extractor) -> Iterator[_Batch]:
    """Fills batches with the readable photos of each shard, and sets the device to work on them."""
    for shard in shards:
        rows = Rows()
        remaining = len(shard.records)
        while remaining:
            pixels: list[np.ndarray] = []
            taken = 0
            while taken < remaining and len(pixels) < extractor.batch_size:
                photo = next(photos)
                taken += 1
                if photo.pixels is None:
                    rows.skipped.append({"id": photo.record.id, "reason": photo.reason})
                else:
                    pixels.append(photo.pixels)
                    rows.ids.append(photo.record.id)
                    rows.labels.append(photo.record.label)
                    rows.hashes.append(photo.sha256)
            remaining -= taken
            features = extractor.dispatch(_padded(np.stack(pixels), extractor.batch_size)) if pixels else None
            yield _Batch(shard, rows, taken, len(pixels), features, not remaining)


def check_readable(dataset: Dataset, skipped: Mapping[str, Sequence[dict[str, str]]]) -> None:
    """Checks that no split has lost more than 5 % of its photos.

    Args:
      dataset: the photos.
      skipped: the unreadable ones of each shard so far.

    Raises:
      CatdogError: naming the split and its first unreadable photos.
    """
    for split in data.SPLITS:
        items = [item for name, items in skipped.items() if cache.split_of(name) == split for item in items]
        total = len(dataset.split(split))
        if len(items) > MAX_SKIPPED_SHARE * total:
            first = "; ".join(f"{item['id']!r}: {item['reason']}" for item in items[:3])
            raise CatdogError(
                f"{split} split: expected at most {MAX_SKIPPED_SHARE:.0%} of {total} photos to be unreadable, found "
                f"{len(items)}, for example {first}. Mend or remove them, then start with a new --out."
            )
