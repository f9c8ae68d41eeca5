"""`catdog train`: cached features to a head."""

import dataclasses

from catdog_jax import jax_environment
from catdog_jax.backbone.pooling import Pool
from catdog_jax.config import TrainConfig
from catdog_jax.console import show, warn
from catdog_jax.features.cache import FeatureCache
from catdog_jax.heads import calibration, head
from catdog_jax.heads.training import _calibrated, _fit, _loaded, _of_cache, _search, _write, resolve


def train(config: TrainConfig) -> head.FittedHead:
    """Trains a head on a feature cache; writes head.safetensors, history.csv and config.json into the run directory.

    What described an earlier, different head in the same directory is removed, see
    `RunDirectory.make_way`.

    Raises:
      CatdogError: the cache is unfinished, damaged, or does not hold the pooling; the loss does not
        stay finite.
      UsageError: an option is out of its range.
    """
    wanted = resolve(config)
    jax_environment.require_devices()
    cache = FeatureCache.open(config.features)
    recipe = _of_cache(wanted, config, cache)
    swept: dict[str, bytes] = {}
    if config.sweep is None:
        result = _fit(recipe, cache, config)
    else:
        result, swept = _search(recipe, cache, config)
        recipe = result.recipe
    params, told = _calibrated(result, _loaded(cache, "validation", recipe, config))
    if recipe.standardise:
        params = head.fold_standardisation(params, result.scaling.mean[0], result.scaling.deviation[0])
    described = dataclasses.asdict(recipe) | told._asdict()
    fitted = head.FittedHead(Pool(recipe.pool), params, cache.classes, cache.fingerprint, described)
    _write(config, result, fitted, swept)
    best = result.fit.best
    show(
        f"trained {len(result.fit.history)} epochs; kept epoch {best.epoch}: validation log loss "
        f"{best.validation_loss:.4f}, accuracy {best.validation_accuracy:.2%}; temperature {told.temperature:.3f}, of "
        f"{told.calibration_photos:,} validation photos"
    )
    warn(calibration.warnings(described))
    return fitted
