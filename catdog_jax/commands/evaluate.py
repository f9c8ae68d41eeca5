"""`catdog evaluate`: how good a head or a model file is."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from catdog_jax import jax_environment
from catdog_jax.config import EvaluateConfig
from catdog_jax.console import console, show, warn
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.evaluation import compare
from catdog_jax.evaluation import page as evaluation_page
from catdog_jax.evaluation.evaluate import Judged, judge_cache, judge_photos, read_history, summarise, table
from catdog_jax.files import atomic, sealed
from catdog_jax.heads import calibration, head
from catdog_jax.heads.run_directory import RunDirectory
from catdog_jax.photos import sources
from catdog_jax.reporting import html


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Judges a head, prints the metrics, and writes metrics.json and report.html into the run directory.

    For a split other than test the files are metrics-SPLIT.json and report-SPLIT.html.

    Returns:
      The contents of metrics.json, see `summarise`; or of models.json, see `judging.judge_models`,
      where --model names some.

    Raises:
      CatdogError: the run or the features are missing or do not go together, or a row is missing.
    """
    if config.data is not None and config.features is not None:
        raise UsageError("--data and --features: expected one of them, found both. Judge photos or cached features.")
    if config.seed < 0 or config.bootstrap < 1:
        raise UsageError(
            f"--seed and --bootstrap: expected 0 and 1 or more, found {config.seed} and {config.bootstrap}."
        )
    if config.model:
        return compare.judge_models(config)
    jax_environment.require_devices()
    fitted = head.load(RunDirectory(config.run).head)
    if config.data is None:
        judged = judge_cache(config, fitted)
    else:
        judged = judge_photos(sources.locate(config.data, config.data_dir), config, fitted)
    result = summarise(judged, fitted.classes, config)
    # By these an export knows whether the figures are those of its head, on the photos kept for
    # testing it.
    result |= {
        "head_sha256": head.digest(fitted.params),
        "own_features": config.data is None and config.features is None,
    }
    result["warnings"] += calibration.warnings(fitted.recipe)
    if (confidence := fitted.recipe.get("abstain_below")) is not None:
        result["abstention"] = calibration.abstention(judged.labels, judged.probabilities[:, 0], confidence)
    out = RunDirectory(config.out or config.run)
    page = out.report(config.split)
    atomic.write_bytes(page, html.with_seal(_page(config, fitted, judged, result)))
    sealed.write_sealed_json(out.metrics(config.split), result)
    show(table(result))
    if "abstention" in result:
        show(evaluation_page.abstention(result["abstention"]))
    warn(result["warnings"])
    if judged.skipped:
        show(f"{len(judged.skipped)} photos could not be read and count nowhere; the report lists them")
    console.print(f"Report: {page}", markup=False, soft_wrap=True)
    return result


def _page(config: EvaluateConfig, fitted: head.FittedHead, judged: Judged, result: dict[str, Any]) -> str:
    photos, note = _thumbnails(judged.source, [one["id"] for one in result["worst"]])
    return evaluation_page.render(
        result,
        judged.labels,
        judged.probabilities[:, 0],
        history=read_history(RunDirectory(config.run).history),
        photos=photos,
        photos_note=note,
        configuration={
            "Evaluation": dataclasses.asdict(config) | {"photos": judged.which or judged.source},
            "Recipe of the head": fitted.recipe,
            "Fingerprint of the features": fitted.fingerprint.to_json(),
        },
    )


def _thumbnails(source: str, ids: Sequence[str]) -> tuple[dict[str, bytes], str]:
    """Thumbnails by id, and a sentence that says why some are missing."""
    try:
        records = {record.id: record for record in sources.load(source, ()).records if record.id in set(ids)}
    except CatdogError as error:
        return {}, f"The photos cannot be shown: {error}"
    photos, unreadable = {}, [f"{one}: it is not in {source} any more" for one in ids if one not in records]
    for record in records.values():
        try:
            photos[record.id] = evaluation_page.thumbnail(sources.read_patiently(record))
        except CatdogError as error:  # the figures are true without a picture
            unreadable.append(f"{record.id}: {error}")
    return photos, f"Photos that cannot be shown: {'; '.join(unreadable)}." if unreadable else ""
