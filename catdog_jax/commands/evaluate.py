"""`catdog evaluate`: how good a head or a model file is. What the one or the other needs is imported when it is known."""

from typing import Any

from catdog_jax import jax_environment
from catdog_jax.config import EvaluateConfig
from catdog_jax.errors import UsageError
from catdog_jax.heads.run_directory import FOLDS
from catdog_jax.photos import sources
from catdog_jax.photos.dataset import Dataset
from catdog_jax.runtime.default_model import find_model


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluates a head, prints the metrics, and writes metrics.json and report.html into the run directory.

    With --model it compares exported models instead, and writes models.json.

    Raises:
      CatdogError: the run or the features are missing or do not go together, or a row is missing.
      UsageError: options do not go together.
    """
    if config.data is not None and config.features is not None:
        raise UsageError("--data and --features: expected one of them, found both. Evaluate photos or cached features.")
    if config.split == FOLDS and (config.data is not None or config.model):
        raise UsageError(
            "--split folds: expected a run, whose cross-validation is judged, found photos or models beside it. Leave them "
            "out, or choose another split."
        )
    if config.model:
        if config.data is None:
            raise UsageError(
                "--model: expected --data, and no --features: exported models are compared on photos. "
                "Name some with --data."
            )
        models = [find_model(path) for path in config.model]
        from catdog_jax.commands.evaluate_models import evaluate_models  # it brings scikit-learn

        return evaluate_models(config, models, _photos(config))
    jax_environment.require_devices()
    from catdog_jax.commands.evaluate_head import evaluate_head  # it brings scikit-learn and JAX

    return evaluate_head(config, None if config.data is None else _photos(config))


def _photos(config: EvaluateConfig) -> Dataset:
    dataset = sources.load(sources.locate(config.data, config.data_dir), ())
    sources.tell(dataset)
    return dataset
