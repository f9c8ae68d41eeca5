"""Photos -> jitted batches through the frozen convolutions -> a feature cache (see `cache` for the files).

Decoding threads run ahead of the device, batches of one static shape are in flight on it, and
finished shards are written behind it, so that none of the three waits for another for long.
"""

import collections
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from rich.text import Text

from catdog_jax.backbone import vgg16, weights
from catdog_jax.config import ExtractConfig
from catdog_jax.console import console, progress_bar
from catdog_jax.errors import CatdogError
from catdog_jax.features import shards as features_shards
from catdog_jax.features.cache import FeatureCache
from catdog_jax.features.extractor import Extractor, padded
from catdog_jax.features.shards import Rows
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.prefetch import Decoded, decoded
from catdog_jax.photos.sources import Dataset, Record

MAX_SKIPPED_SHARE = 0.05  # of a split; above it the data set, not a photo, is at fault
FORGIVEN = 3  # unreadable photos of a split, however small it is
_DECODED_FIRST = 4096  # photos at most that are all decoded, in some seconds, before the network computes for minutes
_IN_FLIGHT = 2  # batches dispatched before the first is waited for, so that the device never waits for the host


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
            Shard(f"{split}-{i:05d}-of-{count:05d}", records[i * shard_size : (i + 1) * shard_size])
            for i in range(count)
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


def _extract_share(
    config: ExtractConfig, dataset: Dataset, extractor: Extractor, prints: dict[str, Any], shards: Sequence[Shard]
) -> None:
    """Computes and writes those of `shards` that are missing or damaged."""
    total = sum(len(shard.records) for shard in shards)
    finished = features_shards.finished(config.out, [shard.name for shard in shards], prints)
    pending = [shard for shard in shards if shard.name not in finished]
    remaining = sum(len(shard.records) for shard in pending)
    skipped = {name: features_shards.skipped(config.out, name) for name in finished}
    if remaining <= _DECODED_FIRST:
        check_readable(dataset, skipped | _unreadable(pending, config.workers))
    with progress_bar("photos") as progress, ThreadPoolExecutor(1) as writer:
        task = progress.add_task("extract", total=total, completed=total - remaining)
        commits = collections.deque[Future[None]]()
        for shard, rows in compute_shards(
            pending, extractor, config.workers, lambda photos: progress.advance(task, photos)
        ):
            skipped[shard.name] = rows.skipped
            commits.append(writer.submit(features_shards.write_shard, config.out, shard.name, rows, prints))
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
            console.print(
                f"  … the others are listed in {finished.path / 'manifest.json'}", soft_wrap=True, markup=False
            )


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

    A batch never mixes shards, so a shard's bytes do not depend on which others are computed in the
    same run.

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
            features = extractor.dispatch(padded(np.stack(pixels), extractor.batch_size)) if pixels else None
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
        lost[features_shards.split_of(shard)] |= {item["id"]: item["reason"] for item in items}
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
