"""Photos go in jitted batches through the frozen convolutions into a feature cache (see `cache` for the files).

Decoding threads or processes run ahead of the device, batches of one static shape are in flight on
it (see `batches`), and finished shards are written behind it, so that none of the three waits for
another for long. Photos
that an earlier cache has features of are not decoded (see `earlier`); a cache of another list of
photos takes the place of the old one only when it is finished (see `growing`).
"""

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from catdog_jax import jax_environment
from catdog_jax.backbone import vgg16
from catdog_jax.backbone import weights as backbone_weights
from catdog_jax.config import ExtractConfig, Preprocessing, cores
from catdog_jax.console import progress_bar
from catdog_jax.errors import CatdogError
from catdog_jax.features import earlier as earlier_rows
from catdog_jax.features import extractor as extractors
from catdog_jax.features import growing, locks, memory
from catdog_jax.features import shards as shard_files
from catdog_jax.features.batches import Shard, compute_shards
from catdog_jax.features.cache import FeatureCache
from catdog_jax.features.earlier import Earlier
from catdog_jax.features.extractor import Extractor
from catdog_jax.files.buckets import Location, location
from catdog_jax.photos import decoding_pool, prefetch
from catdog_jax.photos.dataset import SPLITS, Dataset
from catdog_jax.photos.fingerprint import Fingerprint, FingerprintError
from catdog_jax.photos.recipe import DEFAULT, DecodingRecipe
from catdog_jax.ranges import check_arguments

MAX_SKIPPED_SHARE = 0.05  # of a split; above it the data set, not a photo, is at fault
FORGIVEN = 3  # unreadable photos of a split, however small it is
_KEPT_SHARE = 0.5  # of the photos that a cache holds must be in the data set that takes its place
_DECODED_FIRST = 4096  # photos at most that are all decoded, in some seconds, before the network computes for minutes
_AHEAD = 64  # photos that are decoded to see whether they can be
_PAYS = 2_000  # photos from which on processes that decode for an accelerator save more time than their start takes


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
    decode_in: str = "auto",
    shard_index: int = 0,
    num_shards: int = 1,
    distributed: str | None = None,
    reuse: Sequence[str | Location] = (),
    size: int | None = None,
    resize: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> FeatureCache | None:
    """Extracts the features of every photo, or of those that an interrupted run left.

    Photos that `out` already holds, of an older list of photos, are taken over by their bytes and
    not computed again; the result has the bytes of one that is made from scratch on this machine.
    A bucket is not renewed in its place: name a new `out`, and the old one as `reuse`.

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
      pool: how the cells, 7x7 of 224 pixels, become one vector: "avg", "max", "avg+max", or "none", which keeps
        them all.
      views: what is kept of each photo: some of "original" and "mirror".
      dtype: the type of the stored features, "float16" or "float32".
      precision: the type that the convolutions compute in, see `Extractor`.
      conv: the algorithm of the convolutions, see `Extractor`.
      batch_size: photos that a device computes together.
      shard_size: photos a shard; an interrupted run loses at most the shards in progress.
      workers: decoding threads or processes; by default one a core.
      decode_in: "threads", "processes" (see `photos.decoding_pool`), or "auto": processes where an
        accelerator waits for many photos.
      shard_index: which of `num_shards` shares this process takes, from 0.
      num_shards: how many processes extract into `out`, each a share.
      distributed: takes the share of this process in jax.distributed: "auto", or HOST:PORT.
      reuse: other feature caches whose rows are taken over, where they are what would be computed.
      size: of the squares that photos become, in pixels: a multiple of 32 from 96 to 512; by default
        as the features have it that are there, else 224.
      resize: how they become square, see `DecodingRecipe`: by default as the features have it that are
        there, else "halfway".
      tell: is given sentences: how many photos are taken over, where any might be; what a faster
        algorithm lacks on this machine.

    Returns:
      The finished cache; None where this process has finished its share and others have not, see
      `missing`.

    Raises:
      CatdogError: no usable weights; `out` holds features that were made otherwise (the field is
        named), or of mostly other photos; a cache of `reuse` is none, or made otherwise; too many
        photos cannot be decoded, see `check_readable`; a file cannot be written; a device has too
        little memory.
      TypeError: `photos` is no data set.
      UsageError: a setting is out of its range, or JAX has no device.
    """
    if not isinstance(photos, Dataset):
        raise TypeError(f"photos: expected a Dataset, found {type(photos).__name__}. Make one with load_photos.")
    check_arguments(ExtractConfig, dtype=dtype, shard_size=shard_size, batch_size=batch_size)
    check_arguments(ExtractConfig, workers=workers, decode_in=decode_in, size=size, resize=resize)
    share = locks.share(shard_index, num_shards, distributed)
    jax_environment.require_devices()
    folder = location(out) if isinstance(out, str) else out
    folder.exists()  # a bucket out of reach is told before the work begins
    recipe = recipe_of(
        size, resize, [folder, *(location(other) if isinstance(other, str) else other for other in reuse)]
    )
    loaded = backbone_weights.load(weights, preprocessing)
    shards = plan(photos, shard_size)
    extractor = extractors.Extractor(
        loaded,
        pool=pool,
        views=views,
        precision=precision,
        conv=conv,
        batch_size=batch_size,  # not the photos that there are at most: another batch may round otherwise
        size=recipe.size,
    )
    if tell and extractor.note:
        tell(extractor.note)
    fingerprint = Fingerprint(
        weights_sha256=loaded.sha256,
        preprocessing=loaded.mode,
        preprocessing_version=vgg16.PREPROCESSING_VERSION,
        image=recipe.to_json(),
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
        with locks.alone(folder):
            growing.go_on(folder)
        place = _place(folder, fingerprint)
        earlier = _earlier(folder, place, fingerprint, reuse)
        hashes = {}  # of photos that were read already
        if place != folder and not place.exists():
            hashes = _check_kept(photos, folder, earlier, workers)
        own = shards[share.index :: share.count]
        with memory.told(extractor.batch_size):
            _extract_share(photos, place, extractor, fingerprint, own, workers, decode_in, earlier, hashes, tell)
        with locks.alone(folder):
            if missing(photos, folder, shard_size):
                return None
            _finish(photos, folder, place, [shard.name for shard in shards], fingerprint)
    return FeatureCache.open(folder)


def recipe_of(size: int | None, resize: str | None, places: Sequence[Location]) -> DecodingRecipe:
    """The recipe that new features are decoded by: that of those that are there, the first place first, else the default.

    So a cache of an earlier recipe is resumed and renewed, and taken over from. A size and a resize
    that are asked for come before; where features of another are in the way, the fingerprints say so.
    """
    recipe = DEFAULT
    for prints in filter(None, map(shard_files.kept, places)):
        with contextlib.suppress(CatdogError):  # of a newer version, of which the fingerprints tell
            recipe = DecodingRecipe.from_json(prints.image)
            break
    asked: dict[str, Any] = {"size": size, "resize": resize}
    return dataclasses.replace(recipe, **{name: value for name, value in asked.items() if value is not None})


def _place(out: Location, fingerprint: Fingerprint) -> Location:
    """Where shards are written: `out`, or a folder in it where `out` holds those of another list of photos.

    Raises:
      FingerprintError: `out` holds features that were made otherwise, or a bucket those of another
        list of photos.
    """
    found = [shard_files.of_fingerprint(sidecar) for sidecar in shard_files.sidecars(out).values()]
    others = [prints for prints in found if prints != fingerprint]
    for prints in others:
        if not earlier_rows.of_another_list(prints, fingerprint):
            fingerprint.check_same(prints, out)
    if not others:
        return out
    if not isinstance(out, Path):
        raise FingerprintError(
            f"{out}: holds features of another list of photos, and a bucket cannot be renewed in its place. Choose another "
            f"--out, with --reuse {out}: it takes over the photos that they share."
        )
    return growing.place(out, fingerprint)


def _earlier(out: Location, place: Location, fingerprint: Fingerprint, reuse: Sequence[str | Location]) -> Earlier:
    """The rows that need not be computed: of the old cache in `out`, of interrupted runs on other photos, and of `reuse`."""
    earlier = Earlier(fingerprint)
    if place != out:
        earlier.add(out)
    for waiting in growing.places(out):
        if waiting != place:
            earlier.add(waiting, shown=out)
    for other in (location(other) if isinstance(other, str) else other for other in reuse):
        if other != out:
            earlier.add_named(other)
    return earlier


def _check_kept(photos: Dataset, out: Location, earlier: Earlier, workers: int | None) -> dict[str, str]:
    """Checks that a cache is renewed by what became of its photos, not by another data set. Gives the photos' hashes by id.

    Raises:
      FingerprintError: less than half of the photos that it holds are in the data set.
    """
    there = earlier.photos_of(out)
    hashes = {record.id: digest for record, digest in prefetch.hashed(photos.records, workers)}
    here = {*hashes.values()}
    if len(there & here) < _KEPT_SHARE * len(there):
        raise FingerprintError(
            f"{out}: holds features of {len(there):,} photos, of which {len(there & here):,} are in {photos.source}: expected "
            f"at least half, so that no cache of another data set is lost. Choose another --out (with --reuse {out} what they "
            "share is taken over), or remove the directory."
        )
    return hashes


def _finish(photos: Dataset, out: Location, place: Location, names: Sequence[str], fingerprint: Fingerprint) -> None:
    """Makes a cache of the shards, which are all there, in `place` or, where another process was faster, in `out`."""
    whole = place if shard_files.with_sidecar(place) >= set(names) else out
    check_readable(photos, {name: shard_files.read_sidecar(whole, name)["skipped"] for name in names})
    shard_files.write_manifest(whole, photos.source, names, fingerprint, photos.left_out, seen=out)
    if isinstance(whole, Path) and isinstance(out, Path) and whole != out:
        growing.publish(whole, out)
    growing.clear(out)


def missing(photos: Dataset, out: Location, shard_size: int) -> list[str]:
    """The names of the shards that no process has finished yet."""
    there = {
        name
        for place in (out, *growing.places(out))
        for name, sidecar in shard_files.sidecars(place).items()
        if _is_of(shard_files.of_fingerprint(sidecar), photos, shard_size)
    }
    return [shard.name for shard in plan(photos, shard_size) if shard.name not in there]


def _is_of(prints: Fingerprint, photos: Dataset, shard_size: int) -> bool:
    return (prints.inputs_sha256, prints.classes, prints.shard_size) == (
        photos.inputs_sha256,
        photos.classes,
        shard_size,
    )


def _extract_share(
    photos: Dataset,
    out: Location,
    extractor: Extractor,
    fingerprint: Fingerprint,
    shards: Sequence[Shard],
    workers: int | None,
    decode_in: str,
    earlier: Earlier,
    hashes: Mapping[str, str],
    tell: Callable[[str], None] | None,
) -> None:
    """Writes those of `shards` that are missing or damaged, and computes what no earlier cache has."""
    total = sum(len(shard.records) for shard in shards)
    finished = shard_files.finished(out, [shard.name for shard in shards], fingerprint)
    pending = [shard for shard in shards if shard.name not in finished]
    known = _known(pending, workers, earlier, hashes)
    remaining = sum(record.id not in known for shard in pending for record in shard.records)
    if tell and earlier and pending:
        tell(_taken_over(known, earlier, total, remaining))
    sidecars = {name: shard_files.read_sidecar(out, name) for name in finished}
    skipped = {name: sidecar["skipped"] for name, sidecar in sidecars.items()}
    recipe, processes = fingerprint.recipe, in_processes(decode_in, remaining)
    if _on_cpu() and remaining <= _DECODED_FIRST:  # an accelerator computes as fast as this would find anything
        check_readable(photos, skipped | _unreadable(pending, known, workers, recipe, processes))
    with progress_bar("photos") as progress, ThreadPoolExecutor(1) as writer:
        task = progress.add_task("extract", total=total, completed=total - remaining)
        commits = collections.deque[Future[None]]()
        computed = compute_shards(
            pending, extractor, recipe, workers, lambda done: progress.advance(task, done), earlier, known, processes
        )
        with contextlib.closing(computed):
            for shard, rows in computed:
                skipped[shard.name] = rows.skipped
                commits.append(writer.submit(shard_files.write_shard, out, shard.name, rows, fingerprint))
                while len(commits) > 1:  # at most one shard waits to be written, so that memory stays bounded
                    commits.popleft().result()
                check_readable(photos, skipped)
        for commit in commits:
            commit.result()
    check_readable(photos, skipped)


def in_processes(decode_in: str, photos: int) -> bool:
    """Whether to decode so many photos in processes: "auto" does where a device computes faster than threads decode."""
    if decode_in == "auto":
        return not _on_cpu() and photos >= _PAYS and cores() > 1
    return decode_in == "processes" and photos > 0


def _on_cpu() -> bool:
    return jax.local_devices()[0].platform == "cpu"


def _known(shards: Sequence[Shard], workers: int | None, earlier: Earlier, hashes: Mapping[str, str]) -> dict[str, str]:
    """The photos that an earlier cache has, by their ids: the hashes of their bytes, of which some are there already."""
    if not earlier:
        return {}
    records = [record for shard in shards for record in shard.records]
    unread = (record for record in records if record.id not in hashes)
    found = {**hashes, **{record.id: digest for record, digest in prefetch.hashed(unread, workers)}}
    return {record.id: found[record.id] for record in records if earlier.holds(found[record.id])}


def _taken_over(known: Mapping[str, str], earlier: Earlier, total: int, remaining: int) -> str:
    """The sentence that says how many photos are taken over."""
    if not known:
        return f"none of {total:,} photos is in {_joined(earlier.places)}; {remaining:,} to compute"
    places = dict.fromkeys(earlier.place(digest) for digest in known.values())
    return f"{len(known):,} of {total:,} photos are taken over from {_joined(places)}; {remaining:,} to compute"


def _joined(places: Iterable[Location]) -> str:
    return " and ".join(map(str, places))


def _unreadable(
    shards: Sequence[Shard], known: Mapping[str, str], workers: int | None, recipe: DecodingRecipe, processes: bool
) -> dict[str, list[dict[str, str]]]:
    """The photos of each shard that cannot be decoded, found without the network; those that are known can be."""
    unreadable: dict[str, list[dict[str, str]]] = {shard.name: [] for shard in shards}
    unknown = [(shard.name, record) for shard in shards for record in shard.records if record.id not in known]
    names = (name for name, _ in unknown)
    decoded = decoding_pool.decoded if processes else prefetch.decoded
    photos = decoded((record for _, record in unknown), workers, _AHEAD, recipe)
    for name, photo in zip(names, photos, strict=True):
        if photo.pixels is None:
            unreadable[name].append(photo.skipped)
    return unreadable


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
