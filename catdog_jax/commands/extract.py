"""`catdog extract`: photos to a feature cache."""

from catdog_jax import jax_environment
from catdog_jax.backbone import weights
from catdog_jax.config import ExtractConfig
from catdog_jax.errors import UsageError
from catdog_jax.features import locks
from catdog_jax.features import shards as features_shards
from catdog_jax.features.cache import FeatureCache
from catdog_jax.features.extraction import _extract_share, _report, check_readable, fingerprint, plan
from catdog_jax.features.extractor import Extractor
from catdog_jax.photos import exclude_list, sources


def extract(config: ExtractConfig) -> FeatureCache | None:
    """Extracts the features of every photo, or of those that an interrupted run left.

    Returns:
      The finished cache; None where this process has finished its share and others have not.

    Raises:
      CatdogError: no usable data or weights; the directory holds features of another fingerprint
        (the field is named); too many photos cannot be decoded, see `check_readable`; a file cannot
        be written.
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
        there = features_shards.with_sidecar(config.out)
        missing = [shard.name for shard in shards if shard.name not in there]
        if missing:
            locks.report_missing(missing, len(shards))
            return None
        check_readable(dataset, {shard.name: features_shards.skipped(config.out, shard.name) for shard in shards})
        features_shards.write_manifest(
            config.out, dataset.source, [shard.name for shard in shards], prints, dataset.left_out
        )
    finished = FeatureCache.open(config.out)
    _report(finished)
    return finished
