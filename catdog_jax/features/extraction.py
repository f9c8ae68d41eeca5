"""Photos go in jitted batches through the frozen convolutions into a feature cache (see `cache` for the files).

Decoding threads run ahead of the device, batches of one static shape are in flight on it, and
finished shards are written behind it, so that none of the three waits for another for long.
"""

import collections
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from catdog_jax import jax_environment
from catdog_jax.backbone import vgg16
from catdog_jax.backbone import weights as backbone_weights
from catdog_jax.config import ExtractConfig, Preprocessing
from catdog_jax.console import progress_bar
from catdog_jax.errors import CatdogError
from catdog_jax.features import extractor as extractors
from catdog_jax.features import locks
from catdog_jax.features import shards as shard_files
from catdog_jax.features.cache import FeatureCache
from catdog_jax.features.extractor import Extractor
from catdog_jax.features.shards import Rows
from catdog_jax.files.buckets import Location, location
from catdog_jax.photos import decoding
from catdog_jax.photos.dataset import SPLITS, Dataset, Record
from catdog_jax.photos.fingerprint import Fingerprint
from catdog_jax.photos.prefetch import Decoded, decoded
from catdog_jax.ranges import check_arguments

MAX_SKIPPED_SHARE = 0.05  # of a split; above it the data set, not a photo, is at fault
FORGIVEN = 3  # unreadable photos of a split, however small it is
_DECODED_FIRST = 4096  # photos at most that are all decoded, in some seconds, before the network computes for minutes
_IN_FLIGHT = 2  # batches dispatched before the first is waited for, so that the device never waits for the host


@dataclass(frozen=True)
class Shard:
    """A fixed part of a split: its file name's stem and the photos in it."""

    name: str
    records: tuple[Record, ...]


def plan(dataset: Dataset, shard_size: int) -> list[Shard]:
    """Cuts every split into shards. The plan depends on the inputs alone, so that any process can take any shard."""
    shards = []
    for split in SPLITS:
        records = dataset.split(split)
        count = -(-len(records) // shard_size)
        shards += [
            Shard(f"{split}-{i:05d}-of-{count:05d}", records[i * shard_size : (i + 1) * shard_size])
            for i in range(count)
        ]
    return shards


def extract(
    photos: Dataset,
    out: str | Location,
    *,
    weights: str | Path | backbone_weights.Weights = "auto",
    preprocessing: Preprocessing | None = None,
    pool: str = "avg",
    views: Sequence[str] = ("original",),
    dtype: str = "float16",
    precision: str = "auto",
    conv: str = "auto",
    batch_size: int | None = None,
    shard_size: int = 512,
    workers: int | None = None,
    shard_index: int = 0,
    num_shards: int = 1,
    distributed: str | None = None,
) -> FeatureCache | None:
    """Extracts the features of every photo, or of those that an interrupted run left.

    Example:
      >>> import catdog_jax as cd
      >>> features = cd.extract(cd.load_photos("demo"), "run/features")
      >>> features.load("test", "avg").shape
      (60, 1, 512)

    Args:
      photos: of `load_photos`.
      out: the feature cache to write or to resume: a folder, or a place in a bucket (a URL).
      weights: where VGG16's weights come from, see `backbone.weights.load`; or loaded ones.
      preprocessing: overrides the preprocessing that the weights were trained with.
      pool: how the 7x7 cells become one vector: "avg", "max", "avg+max", or "none", which keeps
        them all.
      views: what is kept of each photo: some of "original" and "mirror".
      dtype: the type of the stored features, "float16" or "float32".
      precision: the type that the convolutions compute in, see `Extractor`.
      conv: the algorithm of the convolutions, see `Extractor`.
      batch_size: photos that a device computes together.
      shard_size: photos a shard; an interrupted run loses at most the shard in progress.
      workers: decoding threads; by default one a core.
      shard_index: which of `num_shards` shares this process takes, from 0.
      num_shards: how many processes extract into `out`, each a share.
      distributed: takes the share of this process in jax.distributed: "auto", or HOST:PORT.

    Returns:
      The finished cache; None where this process has finished its share and others have not, see
      `missing`.

    Raises:
      CatdogError: no usable weights; `out` holds features of another fingerprint (the field is
        named); too many photos cannot be decoded, see `check_readable`; a file cannot be written.
      TypeError: `photos` is no data set.
      UsageError: a setting is out of its range, or JAX has no device.
    """
    if not isinstance(photos, Dataset):
        raise TypeError(f"photos: expected a Dataset, found {type(photos).__name__}. Make one with load_photos.")
    check_arguments(ExtractConfig, dtype=dtype, shard_size=shard_size, batch_size=batch_size, workers=workers)
    share = locks.share(shard_index, num_shards, distributed)
    jax_environment.require_devices()
    folder = location(out) if isinstance(out, str) else out
    folder.exists()  # a bucket out of reach is told before the work begins
    loaded = backbone_weights.load(weights, preprocessing)
    shards = plan(photos, shard_size)
    extractor = extractors.Extractor(
        loaded,
        pool=pool,
        views=views,
        precision=precision,
        conv=conv,
        batch_size=batch_size,
        at_once=max((len(shard.records) for shard in shards), default=0),
    )
    fingerprint = Fingerprint(
        weights_sha256=loaded.sha256,
        preprocessing=loaded.mode,
        preprocessing_version=vgg16.PREPROCESSING_VERSION,
        image=decoding.RECIPE,
        pool=pool,
        views=tuple(views),
        dtype=dtype,
        precision=extractor.precision,
        shard_size=shard_size,
        classes=photos.classes,
        inputs=len(photos.records),
        inputs_sha256=photos.inputs_sha256,
    )
    with locks.claim(folder, share.index, share.count):
        _extract_share(photos, folder, extractor, fingerprint, shards[share.index :: share.count], workers)
        if missing(photos, folder, shard_size):
            return None
        names = [shard.name for shard in shards]
        check_readable(photos, {name: shard_files.read_sidecar(folder, name)["skipped"] for name in names})
        shard_files.write_manifest(folder, photos.source, names, fingerprint, photos.left_out)
    return FeatureCache.open(folder)


def missing(photos: Dataset, out: Location, shard_size: int) -> list[str]:
    """The names of the shards that no process has finished yet."""
    there = shard_files.with_sidecar(out)
    return [shard.name for shard in plan(photos, shard_size) if shard.name not in there]


def _extract_share(
    photos: Dataset,
    out: Location,
    extractor: Extractor,
    fingerprint: Fingerprint,
    shards: Sequence[Shard],
    workers: int | None,
) -> None:
    """Computes and writes those of `shards` that are missing or damaged."""
    total = sum(len(shard.records) for shard in shards)
    finished = shard_files.finished(out, [shard.name for shard in shards], fingerprint)
    pending = [shard for shard in shards if shard.name not in finished]
    remaining = sum(len(shard.records) for shard in pending)
    skipped = {name: shard_files.read_sidecar(out, name)["skipped"] for name in finished}
    if remaining <= _DECODED_FIRST:
        check_readable(photos, skipped | _unreadable(pending, workers))
    with progress_bar("photos") as progress, ThreadPoolExecutor(1) as writer:
        task = progress.add_task("extract", total=total, completed=total - remaining)
        commits = collections.deque[Future[None]]()
        for shard, rows in compute_shards(pending, extractor, workers, lambda done: progress.advance(task, done)):
            skipped[shard.name] = rows.skipped
            commits.append(writer.submit(shard_files.write_shard, out, shard.name, rows, fingerprint))
            while len(commits) > 1:  # at most one shard waits to be written, so that memory stays bounded
                commits.popleft().result()
            check_readable(photos, skipped)
        for commit in commits:
            commit.result()
    check_readable(photos, skipped)


def _unreadable(shards: Sequence[Shard], workers: int | None) -> dict[str, list[dict[str, str]]]:
    """The photos of each shard that cannot be decoded, found without the network."""
    unreadable: dict[str, list[dict[str, str]]] = {shard.name: [] for shard in shards}
    names = (shard.name for shard in shards for _ in shard.records)
    photos = decoded((record for shard in shards for record in shard.records), workers, _IN_FLIGHT)
    for name, photo in zip(names, photos, strict=True):
        if photo.pixels is None:
            unreadable[name].append(photo.skipped)
    return unreadable


@dataclass(frozen=True)
class _Batch:
    """Photos of one shard on their way through the device: how many were decoded, and how many of them are in the batch.

    The features are None where no photo was readable; `last` says that the shard is complete with it.
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

    `workers` are decoding threads, None for one a core; `advance` is told how many further
    photos are done.
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
                    rows.groups.append(photo.record.group)
            remaining -= taken
            features = extractor.dispatch(extractors.padded(np.stack(pixels), extractor.batch_size)) if pixels else None
            yield _Batch(shard, rows, taken, len(pixels), features, not remaining)


def check_readable(dataset: Dataset, skipped: Mapping[str, Sequence[dict[str, str]]]) -> None:
    """Checks that no split has lost a class, nor more than 5 % of its photos where these are more than three.

    Raises:
      CatdogError: naming the split, the class and its first unreadable photos, and a way out.
    """
    lost: dict[str, dict[str, str]] = {split: {} for split in SPLITS}
    for shard, items in skipped.items():
        lost[shard_files.split_of(shard)] |= {item["id"]: item["reason"] for item in items}
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
