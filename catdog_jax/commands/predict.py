"""`catdog predict`: photos through a model file."""

import collections
import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from catdog_jax.config import PredictConfig
from catdog_jax.console import printable, progress_bar, quiet, say, write
from catdog_jax.errors import UsageError
from catdog_jax.runtime import decision, heatmaps
from catdog_jax.runtime.arguments import opened, predictions
from catdog_jax.runtime.inputs import find_photos
from catdog_jax.runtime.output import Row, form_of, rendered, write_file
from catdog_jax.runtime.predictor import Predictor
from catdog_jax.runtime.sorting import Sorter
from catdog_jax.runtime.watching import Watch, until_interrupted

# Photos by class, sure and neither, all None where they cannot be read
Counts = collections.Counter[tuple[str | None, bool | None, bool | None]]
_UNREADABLE = (None, None, None)


def predict(config: PredictConfig) -> int:
    """Classifies photos and prints the results on stdout, as a table, JSON lines or CSV, or writes them into a file.

    Returns:
      The exit status: 0, or 1 if a photo could not be read (it is listed with the reason).

    Raises:
      BrokenPipeError: the reader of stdout went away.
      CatdogError: there are no photos, a result cannot be written, or the model cannot be used; see
        `Predictor`.
      UsageError: a setting is out of range, settings do not go together, or a path is a URL.
    """
    with quiet(config.quiet):
        return _predict(config)


def _predict(config: PredictConfig) -> int:
    form = form_of(config.format, config.out)
    _check_folders(config)
    results = [folder for folder in (config.sort, config.heatmap) if folder is not None]
    photos = None if config.watch else find_photos(config.paths, config.list, config.null, results)
    predictor = opened(config)
    if config.heatmap is not None and not predictor.explains:
        raise UsageError("--heatmap: expected a model with the output 'heatmap', found none. Export it again.")
    if config.require_strangeness and not predictor.knows_strangers:
        raise UsageError(
            "--require-strangeness: expected a model with the output 'strangeness', found none: it cannot tell photos of "
            "neither class. Train and export again, or leave it out."
        )
    overlays = None if config.heatmap is None else heatmaps.Folder(config.heatmap, predictor.recipe)
    sorter = None if config.sort is None else Sorter(config.sort, config.sort_with, predictor.classes)
    counts: Counts = collections.Counter()
    with contextlib.ExitStack() as watching:
        if photos is not None:
            batches = predictions(predictor, photos, config.batch_size, overlays, sorter)
            # What is printed at the end should not be waited for in the dark
            if form == "table" or config.out or config.unsure_first:
                batches = _with_progress(batches, len(photos))
        else:
            stop = watching.enter_context(until_interrupted())
            looks = Watch([Path(path) for path in config.paths], results).looks(config.watch or 0, stop)
            say(f"watching {', '.join(map(str, config.paths))} every {config.watch:g} s; Ctrl-C ends it")
            batches = itertools.chain.from_iterable(
                predictions(
                    predictor,
                    itertools.takewhile(lambda _: not stop.is_set(), new),
                    config.batch_size,
                    overlays,
                    sorter,
                )
                for new in looks
            )
            form = "lines" if form == "table" else form
        batches = _counted(batches, counts)
        if config.unsure_first:
            batches = _unsure_first(batches)
        columns = (*(decision.STRANGE_KEYS if predictor.knows_strangers else ()), *(("sorted",) if sorter else ()))
        if config.out is not None:
            write_file(config.out, form, predictor.classes, batches, columns)
        else:
            for text in rendered(form, predictor.classes, batches, columns):
                write(text)
    say(_summary(config, predictor, counts))
    return 1 if counts[_UNREADABLE] else 0


def _check_folders(config: PredictConfig) -> None:
    """Checks what --watch and --sort go together with."""
    if config.watch is not None:
        for name, given in (("--list", config.list), ("--unsure-first", config.unsure_first)):
            if given:
                raise UsageError(
                    f"--watch: expected no {name}, found it: the photos have no end. Leave out one of the two."
                )
        others = [str(path) for path in config.paths if not os.path.isdir(path)]
        if others or not config.paths:
            raise UsageError(f"--watch: expected folders, found {', '.join(others) or 'none'}. Name folders.")
    if config.sort is None:
        if config.sort_with != "copy":
            raise UsageError(f"--sort-with {config.sort_with}: expected --sort DIR, found none. Name a folder.")
    elif os.path.lexists(config.sort) and not config.sort.is_dir():
        raise UsageError(f"--sort {config.sort}: expected a folder, found something else. Name another.")


def _counted(batches: Iterable[list[Row]], counts: Counts) -> Iterator[list[Row]]:
    for batch in batches:
        counts.update((row.get("class"), row.get("sure"), row.get("neither")) for row in batch)
        yield batch


def _unsure_first(batches: Iterable[list[Row]]) -> Iterator[list[Row]]:
    """All rows at once, in the order in which a person should look at them."""
    yield sorted(itertools.chain.from_iterable(batches), key=_urgency)


def _urgency(row: Row) -> tuple[int, float]:
    if "error" in row:
        return 0, 0.0
    if row.get("neither"):
        return 1, -row["strangeness"]
    return 2 if row["sure"] is False else 3, row["probability"]


def _summary(config: PredictConfig, predictor: Predictor, counts: Counts) -> str:
    rule = predictor.rule
    said = f"{counts.total():,} photos on {predictor.device}: {_in_words(rule, counts)}"
    ways = {"copy": "copies", "hardlink": "hard links", "symlink": "links"}
    places = (
        ("heat maps", config.heatmap),
        (f"{ways[config.sort_with]} by class", config.sort),
        ("results", config.out),
    )
    said += "".join(f"; {what} in {where}" for what, where in places if where is not None)
    return said if rule.abstain_below is not None else f"{said}. {decision.UNKNOWN}"


def _in_words(rule: decision.Rule, counts: Counts) -> str:
    known = {key: count for key, count in counts.items() if not key[2]}
    judged = [
        f"{sum(count for key, count in known.items() if key[0] == name and key[1] is not False):,} {printable(name)}"
        for name in rule.classes
    ]
    unsure = sum(count for key, count in known.items() if key[1] is False)
    neither = sum(count for key, count in counts.items() if key[2])
    further = [*([] if rule.abstain_below is None else [f"{unsure:,} unsure"]),
               *([] if rule.strange_above is None else [f"{neither:,} of neither class"])]  # fmt: skip
    return ", ".join([*judged, *further, f"{counts[_UNREADABLE]:,} unreadable"])


def _with_progress(batches: Iterable[list[Row]], photos: int) -> Iterator[list[Row]]:
    with progress_bar("photos") as progress:
        task = progress.add_task("predict", total=photos)
        for batch in batches:
            yield batch
            progress.advance(task, len(batch))
