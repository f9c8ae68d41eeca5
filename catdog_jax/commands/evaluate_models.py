"""`catdog evaluate --model`: model files side by side, which needs scikit-learn and no JAX."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from catdog_jax.config import THRESHOLD, EvaluateConfig
from catdog_jax.console import printable, say, show, warn
from catdog_jax.evaluation.compare import Comparison, compare
from catdog_jax.photos.dataset import Dataset
from catdog_jax.reporting.metrics import METRICS, photos_of, shown

_COMPARED = ("accuracy", "balanced_accuracy", "f1", "log_loss", "ece")


def evaluate_models(config: EvaluateConfig, models: Sequence[Path], photos: Dataset) -> dict[str, Any]:
    """Compares models, prints a row each, and writes models.json.

    Raises:
      CatdogError: as `compare`.
    """
    result = compare(
        models,
        photos,
        split=config.split or "test",
        bootstrap=config.bootstrap,
        seed=config.seed,
        device=config.device,
    )
    say(result.photos)
    out = result.save(config.out or config.run)
    show(compared(result))
    warn(result.warnings)
    if result.skipped:
        show(f"photos that could not be read and count nowhere: {len(result.skipped)}, listed in {out.name}")
    say(f"Written to {out}")
    return result.to_json()


def compared(result: Comparison) -> Table:
    """The models as they are printed, a row each."""
    printed = Table(title=f"{result.n:,} {photos_of(result.split)}", pad_edge=False, caption_justify="left")
    printed.caption = Text(f"Baseline, {result.baseline}")
    titles = [METRICS[name].titled(result.classes) for name in _COMPARED]
    for title in map(printable, ("Model", "MB", "Photos/s", *titles, "Differs", "Neither")):
        printed.add_column(title, justify="left" if title == "Model" else "right", overflow="fold")
    for model in result.models:
        figures = ["\n".join(shown(name, model.metrics[name])) for name in _COMPARED]
        size, rate = f"{model.size / 1e6:.1f}", f"{model.photos_per_second:.1f}"
        named = f"{model.precision}\n{model.name}" + (f"\non {model.device}" if model.device != "cpu" else "")
        if model.threshold != THRESHOLD:
            named += f"\n{result.classes[1]} from {model.threshold:.3g} on"
        neither = "" if model.neither is None else str(model.neither)
        printed.add_row(Text(named), size, rate, *figures, str(model.decides_otherwise), neither)
    return printed
