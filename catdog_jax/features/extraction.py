"""Photos -> jitted batches through the frozen convolutions -> a feature cache (see cache.py for the files).

Decoding threads run ahead of the device, batches of one static shape are in flight on it, and finished shards are written
behind it, so that none of the three waits for another for long.
"""

import collections
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.text import Text

from catdog_jax import jax_environment
from catdog_jax.backbone import vgg16, weights, winograd
from catdog_jax.config import ExtractConfig, Pool
from catdog_jax.console import console, progress_bar
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.features import cache, locks
from catdog_jax.features.cache import FeatureCache, Rows
from catdog_jax.photos import decoding, exclude_list, sources
from catdog_jax.photos.prefetch import Decoded, decoded
from catdog_jax.photos.sources import Dataset, Record

MAX_SKIPPED_SHARE = 0.05  # of a split; above it the data set, not a photo, is at fault
FORGIVEN = 3  # unreadable photos of a split, however small it is
_DECODED_FIRST = 4096  # photos at most that are all decoded, in some seconds, before the network computes for minutes
_BYTES_A_PHOTO = 40e6  # of a device's memory while its batch is computed: at most 37 MB for any precision and algorithm
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
        at_once: int | None = None,
    ):
        """Puts the weights on the devices. See `ExtractConfig` for the options; `batch_size` counts one device's photos.

        No batch is larger than `at_once` fills, the most photos that will ever come together. Where the command line has made
        each CPU core a device, each computes its photos alone on one thread: without the barriers between threads of one
        computation, two cores extract about one and a half times as fast.

        Raises:
          UsageError: Winograd was asked for in bfloat16, or a batch that takes more memory than there is.
        """
        devices = jax.local_devices()
        on_cpu = devices[0].platform == "cpu"
        self.precision = ("float32" if on_cpu else "bfloat16") if precision == "auto" else precision
        if conv == "auto":
            conv = "winograd" if on_cpu and self.precision == "float32" else "direct"
        if conv == "winograd" and self.precision != "float32":
            raise UsageError(f"--conv winograd: expected --precision float32, found {self.precision}. Choose one of the two.")
        self.conv = conv
        self.batch_size = _on_each(devices, batch_size, at_once) * len(devices)
        self._columns = vgg16.columns(pool)
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

        Raises:
          CatdogError: `photos` has another type or shape.
        """
        decoding.check_photos(photos)
        return self._compute(self._params, jax.device_put(photos, self._by_photo))

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        """Features of any number of photos: uint8 [N, 224, 224, 3] -> float32 [N, columns], of the first view.

        Raises:
          CatdogError: `photos` has another type or shape.
        """
        decoding.check_photos(photos)
        parts = [np.empty((0, self._columns), np.float32)]
        for start in range(0, len(photos), self.batch_size):
            part = photos[start : start + self.batch_size]
            result = np.asarray(self.dispatch(_padded(part, self.batch_size))[: len(part), 0])
            parts.append(result.reshape(len(part), -1))
        return np.concatenate(parts)


def _on_each(devices: Sequence[jax.Device], batch_size: int | None, at_once: int | None) -> int:
    """How many photos each device computes together.

    Raises:
      UsageError: a batch of the size that was asked for takes more memory than there is.
    """
    on_cpu = devices[0].platform == "cpu"
    fills = math.inf if at_once is None else max(1, -(-at_once // len(devices)))
    size = int(min(batch_size or (8 if on_cpu else 256), fills))
    sharing = len(devices) if on_cpu else 1  # CPU cores share one memory
    memory = _memory(devices[0])
    needed = size * sharing * _BYTES_A_PHOTO
    if batch_size and memory and needed > memory:
        raise UsageError(
            f"--batch-size {batch_size}: expected a batch that fits into {memory / 1e9:,.0f} GB of memory, found "
            f"{size * sharing:,} photos at once, which take {needed / 1e9:,.0f} GB. Try --batch-size "
            f"{max(1, int(memory / sharing / _BYTES_A_PHOTO))} or less, or leave it out."
        )
    return size


def _memory(device: jax.Device) -> float:
    """The bytes that batches may take: an accelerator's memory, or half of the machine's; 0 where neither is told."""
    if device.platform != "cpu":
        return int((device.memory_stats() or {}).get("bytes_limit", 0))
    known = {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= getattr(os, "sysconf_names", {}).keys()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2 if known else 0


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
    for split in sources.SPLITS:
        records = dataset.split(split)
        count = -(-len(records) // shard_size)
        shards += [
            Shard(f"{split}-{i:05d}-of-{count:05d}", records[i * shard_size : (i + 1) * shard_size]) for i in range(count)
        ]
    return shards


def fingerprint(config: ExtractConfig, dataset: Dataset, pretrained: weights.Weights, precision: str) -> dict[str, Any]:
    """Everything that decides the bytes of a cache. The convolution algorithm does not: it rounds far below float16."""
    return {
        "weights_sha256": pretrained.sha256,
        "preprocessing": pretrained.mode,
        "preprocessing_version": vgg16.PREPROCESSING_VERSION,
        "image": decoding.RECIPE,
        "pool": config.pool,
        "views": config.views.split(","),
        "dtype": config.dtype,
        "precision": precision,
        "shard_size": config.shard_size,
        "classes": list(dataset.classes),
        "inputs": len(dataset.records),
        "inputs_sha256": dataset.inputs_sha256,
    }


def extract(config: ExtractConfig) -> FeatureCache | None:
    """Extracts the features of every photo, or of those that an interrupted run left.

    Returns:
      The finished cache; None where this process has finished its share and others have not.

    Raises:
      CatdogError: no usable data or weights; the directory holds features of another fingerprint (the field is named); too
        many photos cannot be decoded, see `check_readable`; a file cannot be written.
      UsageError: an option is out of its range, or JAX has no device.
    """
    if any(value is not None and value < 1 for value in (config.shard_size, config.batch_size, config.workers)):
        raise UsageError("--shard-size, --batch-size and --workers: expected 1 or more, found less. Leave them out.")
    index, count = locks.share(config)
    jax_environment.require_devices()
    config.out.exists()  # a bucket out of reach is told before the work begins
    dataset = exclude_list.without(sources.load(sources.locate(config.data, config.data_dir)), config.exclude)
    sources.tell(dataset)
    pretrained = weights.load(config.weights, config.preprocessing)
    views = config.views.split(",")
    shards = plan(dataset, config.shard_size)
    largest = max((len(shard.records) for shard in shards), default=0)
    extractor = Extractor(pretrained, config.pool, views, config.precision, config.conv, config.batch_size, largest)
    prints = fingerprint(config, dataset, pretrained, extractor.precision)
    with locks.claim(config.out, index, count):
        _extract_share(config, dataset, extractor, prints, shards[index::count])
        there = cache.with_sidecar(config.out)
        missing = [shard.name for shard in shards if shard.name not in there]
        if missing:
            locks.report_missing(missing, len(shards))
            return None
        check_readable(dataset, {shard.name: cache.skipped(config.out, shard.name) for shard in shards})
        cache.write_manifest(config.out, dataset.source, [shard.name for shard in shards], prints, dataset.left_out)
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
    if remaining <= _DECODED_FIRST:
        check_readable(dataset, skipped | _unreadable(pending, config.workers))
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
    for split in sources.SPLITS:
        skipped = finished.skipped(split)
        console.print(f"{split}: {finished.rows(split):,} photos" + (f", {len(skipped)} skipped" if skipped else ""))
        for item in skipped[:10]:
            console.print(Text(f"  {item['id']!r}: {item['reason']}", "yellow"), soft_wrap=True)
        if len(skipped) > 10:
            console.print(f"  … the others are listed in {finished.path / 'manifest.json'}", soft_wrap=True, markup=False)


def _unreadable(shards: Sequence[Shard], workers: int | None) -> dict[str, list[dict[str, str]]]:
    """The photos of each shard that cannot be decoded, found without the network."""
    found: dict[str, list[dict[str, str]]] = {shard.name: [] for shard in shards}
    names = (shard.name for shard in shards for _ in shard.records)
    photos = decoded((record for shard in shards for record in shard.records), workers, _IN_FLIGHT)
    for name, photo in zip(names, photos, strict=True):
        if photo.pixels is None:
            found[name].append(photo.skipped)
    return found


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
                    rows.skipped.append(photo.skipped)
                else:
                    pixels.append(photo.pixels)
                    rows.ids.append(photo.record.id)
                    rows.labels.append(photo.record.label)
                    rows.hashes.append(photo.sha256)
            remaining -= taken
            features = extractor.dispatch(_padded(np.stack(pixels), extractor.batch_size)) if pixels else None
            yield _Batch(shard, rows, taken, len(pixels), features, not remaining)


def check_readable(dataset: Dataset, skipped: Mapping[str, Sequence[dict[str, str]]]) -> None:
    """Checks that no split has lost a class, nor more than 5 % of its photos where these are more than three.

    Args:
      dataset: the photos.
      skipped: the unreadable ones of each shard so far.

    Raises:
      CatdogError: naming the split, the class and its first unreadable photos, and a way out.
    """
    lost: dict[str, dict[str, str]] = {split: {} for split in sources.SPLITS}
    for shard, items in skipped.items():
        lost[cache.split_of(shard)] |= {item["id"]: item["reason"] for item in items}
    for split, reasons in lost.items():
        if reasons:
            _check_split(dataset, split, reasons)


def _check_split(dataset: Dataset, split: str, lost: Mapping[str, str]) -> None:
    records = dataset.split(split)
    for label, name in enumerate(dataset.classes):
        of_class = [record.id for record in records if record.label == label]
        if of_class and lost.keys() >= set(of_class):
            raise CatdogError(
                f"{split} split: expected photos of {name!r} that can be read, found none: {_first(lost, of_class)}. "
                f"Replace them or add others, then start with a new --out; `catdog audit` lists all that is wrong."
            )
    if len(lost) > max(MAX_SKIPPED_SHARE * len(records), FORGIVEN):
        raise CatdogError(
            f"{split} split: expected at most {MAX_SKIPPED_SHARE:.0%} of {len(records):,} photos to be unreadable, found "
            f"{len(lost):,}: {_first(lost, list(lost))}. Replace them, or leave them out: `catdog audit --data "
            f"{dataset.source} --write-exclude exclude.txt`, then start with --exclude exclude.txt and a new --out."
        )


def _first(reasons: Mapping[str, str], names: Sequence[str]) -> str:
    """The first few of the unreadable photos with their reasons."""
    listed = "; ".join(f"{name!r}: {reasons[name]}" for name in names[:3])
    return listed + (f"; and {len(names) - 3:,} more" if len(names) > 3 else "")
