"""`catdog extract`: photos to a feature cache."""

from rich import box
from rich.table import Table
from rich.text import Text

from catdog_jax import jax_environment
from catdog_jax.config import ExtractConfig
from catdog_jax.console import console, printable, say
from catdog_jax.features import extraction, locks
from catdog_jax.features.cache import FeatureCache
from catdog_jax.photos import sources
from catdog_jax.photos.dataset import SPLITS, Dataset
from catdog_jax.reporting import warnings

_LISTED = 10  # skipped photos of a split that are printed
_NAMED = 5  # missing shards that are printed


def extract(config: ExtractConfig, photos: Dataset | None = None) -> FeatureCache | None:
    """Extracts the features of every photo, or of those that an interrupted run left, see `extraction.extract`.

    `photos` are those that the settings name, where they are loaded already.

    Returns:
      The finished cache; None where this process has finished its share and others have not.

    Raises:
      CatdogError: there are no usable photos; or as `extraction.extract`.
      UsageError: as `extraction.extract`.
    """
    share = locks.share(config.shard_index, config.num_shards, config.distributed)
    if config.distributed is not None:
        console.print(f"process {share.index} of {share.count}", style="dim", markup=False)
    jax_environment.require_devices()
    config.out.exists()  # a bucket out of reach is told before the photos are looked at
    if photos is None:
        photos = sources.load_photos(
            sources.locate(config.data, config.data_dir),
            exclude=config.exclude,
            groups=config.groups,
            undivided=config.undivided,
        )
    sources.tell(photos)
    if share.index == 0:
        tell_counts(photos)
    cache = extraction.extract(
        photos,
        config.out,
        weights=config.weights,
        preprocessing=config.preprocessing,
        pool=config.pool,
        views=config.views,
        dtype=config.dtype,
        precision=config.precision,
        conv=config.conv,
        batch_size=config.batch_size,
        shard_size=config.shard_size,
        workers=config.workers,
        decode_in=config.decode_in,
        shard_index=share.index,
        num_shards=share.count,
        reuse=config.reuse,
        size=config.size,
        resize=config.resize,
        tell=say,
    )
    if cache is None:
        _tell_missing(photos, config)
    else:
        _tell(cache)
    return cache


def tell_counts(photos: Dataset) -> None:
    """Prints how many photos of each class each split has, and in a sentence where one class has far more than the other."""
    rows = {split: [0, 0] for split in SPLITS}
    for record in photos.records:
        rows[record.split][record.label] += 1
    rows = {split: counts for split, counts in rows.items() if any(counts)}
    totals = [sum(counts[label] for counts in rows.values()) for label in (0, 1)]
    table = Table("photos", pad_edge=False, box=box.SIMPLE_HEAD)
    for name in photos.classes:
        table.add_column(Text(printable(name)), justify="right")
    for split, counts in (rows | ({"all": totals} if len(rows) > 1 else {})).items():
        table.add_row(split, *(f"{count:,}" for count in counts))
    console.print(table)
    if sentence := warnings.lopsided(totals, photos.classes):
        say(sentence, "yellow")


def _tell_missing(photos: Dataset, config: ExtractConfig) -> None:
    """Says which shards other processes have yet to finish."""
    missing = extraction.missing(photos, config.out, config.shard_size)
    total = len(extraction.plan(photos, config.shard_size))
    names = ", ".join(missing[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
    say(
        f"this share is finished; {len(missing)} of {total} shards are missing: {names}. The process that finishes last makes "
        "them a cache; if one died, run the command again, with any --num-shards."
    )


def _tell(cache: FeatureCache) -> None:
    """Says how many photos each split has, and which were skipped and why."""
    for split in SPLITS:
        skipped = cache.skipped(split)
        if not (cache.rows(split) or skipped):
            continue
        console.print(f"{split}: {cache.rows(split):,} photos" + (f", {len(skipped)} skipped" if skipped else ""))
        for item in skipped[:_LISTED]:
            say(f"  {item['id']!r}: {item['reason']}", "yellow")
        if len(skipped) > _LISTED:
            say(f"  … the others are listed in {cache.path / 'manifest.json'}")
