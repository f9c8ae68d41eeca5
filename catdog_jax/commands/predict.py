"""`catdog predict`: photos through a model file."""

import collections
from collections.abc import Iterable, Iterator

from catdog_jax.config import PredictConfig
from catdog_jax.console import printable, progress_bar, say, write
from catdog_jax.errors import UsageError
from catdog_jax.runtime import decision, heatmaps
from catdog_jax.runtime.arguments import find_model, find_photos, predictions
from catdog_jax.runtime.output import Row, rendered
from catdog_jax.runtime.predictor import Predictor

# Photos by class and sure, both None where they cannot be read
Counts = collections.Counter[tuple[str | None, bool | None]]


def predict(config: PredictConfig) -> int:
    """Classifies photos and prints the results on stdout as a table, as JSON lines or as CSV.

    Returns:
      The exit status: 0, or 1 if a photo could not be read (it is listed with the reason).

    Raises:
      BrokenPipeError: the reader of stdout went away.
      CatdogError: there are no photos, or the model cannot be used; see `Predictor`.
      UsageError: a setting is out of range.
    """
    if not config.paths:
        raise UsageError("paths: expected photos or folders, found none. Name some; see `catdog predict --help`.")
    photos = find_photos(config.paths)
    predictor = Predictor(find_model(config.model), batch_size=config.batch_size, threads=config.threads)
    if config.heatmap is not None and not predictor.explains:
        raise UsageError("--heatmap: expected a model with the output 'heatmap', found none. Export it again.")
    overlays = None if config.heatmap is None else heatmaps.Folder(config.heatmap)
    counts: Counts = collections.Counter()
    batches = _counted(predictions(predictor, photos, config.batch_size, overlays), counts)
    if config.format == "table":  # which is printed at the end, and should not be waited for in the dark
        batches = _with_progress(batches, len(photos))
    for text in rendered(config.format, predictor.classes, batches):
        write(text)
    where = "" if config.heatmap is None else f"; heat maps in {config.heatmap}"
    unknown = "" if predictor.rule.abstain_below is not None else f". {decision.UNKNOWN}"
    say(f"{len(photos):,} photos: {_in_words(predictor.rule, counts)}{where}{unknown}")
    return 1 if counts[None, None] else 0


def _counted(batches: Iterable[list[Row]], counts: Counts) -> Iterator[list[Row]]:
    for batch in batches:
        counts.update((row.get("class"), row.get("sure")) for row in batch)
        yield batch


def _in_words(rule: decision.Rule, counts: Counts) -> str:
    judged = [f"{counts[name, True] + counts[name, None]:,} {printable(name)}" for name in rule.classes]
    unsure = sum(counts[name, False] for name in rule.classes)
    return ", ".join(
        [*judged, *([] if rule.abstain_below is None else [f"{unsure:,} unsure"]), f"{counts[None, None]:,} unreadable"]
    )


def _with_progress(batches: Iterable[list[Row]], photos: int) -> Iterator[list[Row]]:
    with progress_bar("photos") as progress:
        task = progress.add_task("predict", total=photos)
        for batch in batches:
            yield batch
            progress.advance(task, len(batch))
