"""`catdog audit`: is this data set fit to train on? Broken files, copies, leakage, suspicious labels, drift."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from catdog_jax import __version__, audit_page, data, duplicates, exclusion, findings, jax_environment, storage, survey
from catdog_jax.buckets import Place
from catdog_jax.config import AuditConfig
from catdog_jax.console import console
from catdog_jax.data import Dataset
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.findings import Drift, Findings, Suspicion

if TYPE_CHECKING:
    from catdog_jax.suspects import Labels

FORMAT = 1
FOUND = 3  # the exit status of --strict where something was found
LOOKED_AT = 50  # labels that the page shows at least, the most suspicious ones
_LISTED = 10  # lines of a kind on the console
_WITHOUT = (
    "Labels and drift were not looked at: they need features. Run `catdog extract --out CACHE`, then `catdog audit "
    "--features CACHE`."
)


def audit(config: AuditConfig) -> int:
    """Audits a data set, prints what was found, and writes audit.html, audit.json and, if asked, the exclude file.

    Returns:
      The exit status: `FOUND` with --strict where something was found, else 0.

    Raises:
      CatdogError: there is no usable data set or cache, or a file cannot be written.
      UsageError: an option is out of its range.
    """
    if config.seed < 0 or (config.workers is not None and config.workers < 1):
        raise UsageError(f"--seed and --workers: expected 0 and 1 or more, found {config.seed} and {config.workers}.")
    if config.features is not None:
        jax_environment.require_devices()
    dataset = exclusion.without(data.load(data.locate(config.data, config.data_dir)), config.exclude)
    found = inspect(dataset, config.features, config.workers, config.seed)
    page = config.out / "audit.html"
    shown = audit_page.render(found, audit_page.thumbnails(dataset, audit_page.shown(found)))
    storage.write_bytes(page, shown.encode("utf-8", "backslashreplace"))  # of ids not in UTF-8
    storage.write_json(config.out / "audit.json", {"format": FORMAT, "version": __version__} | dataclasses.asdict(found))
    if config.write_exclude is not None:
        exclusion.write(config.write_exclude, findings.exclude_lines(found))
    _report(found)
    console.print(f"Page: {page}", markup=False, soft_wrap=True)
    if config.write_exclude is not None:
        told = f"Left out by `catdog extract` and `catdog run` with --exclude {config.write_exclude}: "
        console.print(f"{told}{len(exclusion.read(config.write_exclude)):,} photos", markup=False, soft_wrap=True)
    return FOUND if config.strict and found.anything() else 0


def inspect(dataset: Dataset, features: Place | None = None, workers: int | None = None, seed: int = 0) -> Findings:
    """Everything that can be found out about a data set.

    Args:
      dataset: the photos.
      features: a feature cache that has them, or some of them; without one labels and drift are not looked at.
      workers: decoding threads; None for one a core.
      seed: decides the folds and the resamples.

    Raises:
      CatdogError: the cache is unfinished or damaged, or has none of the photos.
    """
    looks = survey.survey(dataset, workers)
    of = findings.photos(dataset)
    found = Findings(dataset.source, dataset.classes, findings.counts(dataset), findings.faulty(of, looks), ())
    if features is None:
        return dataclasses.replace(found, copies=findings.copies(of, looks, duplicates.find(looks)), notes=(_WITHOUT,))
    from catdog_jax import suspects  # brings JAX, which nothing else here needs
    from catdog_jax.cache import FeatureCache

    rows = suspects.features_of(FeatureCache.open(features), looks)
    if not rows:
        raise CatdogError(
            f"{features}: expected features of photos of {dataset.source}, found those of others. Run `catdog extract` on it."
        )
    groups = duplicates.find(looks, rows)
    found = dataclasses.replace(found, copies=findings.copies(of, looks, groups), judged=len(rows))
    notes = []
    if missing := len(of) - len(rows):
        notes.append(f"{missing:,} of {len(of):,} photos have no features: their labels were not judged.")
    judged = suspects.judge_labels(dataset, rows, groups, seed)
    if judged is None:
        notes.append(f"Labels were not judged: that needs {suspects.MIN_PHOTOS} photos of each class with features.")
        return dataclasses.replace(found, judged=0, notes=tuple(notes))
    labels = judged[0]
    drift = tuple(Drift(*one) for one in suspects.drifts(dataset, rows, groups, seed))
    return dataclasses.replace(
        found,
        accuracy=float((labels.other < 0.5).mean()),
        suspicions=tuple(_suspicions(dataset, list(rows), labels)),
        drift=drift,
        notes=tuple(notes),
    )


def _suspicions(dataset: Dataset, rows: Sequence[int], labels: "Labels") -> list[Suspicion]:
    """All suspects, and the most improbable labels up to `LOOKED_AT`, in the order of how improbable they are."""
    of = findings.photos(dataset)
    order = sorted(range(len(rows)), key=lambda index: (not labels.suspect[index], -labels.other[index], rows[index]))
    chosen = [
        index for place, index in enumerate(order) if labels.suspect[index] or (place < LOOKED_AT and labels.other[index] > 0.5)
    ]
    return [
        Suspicion(
            photo=of[rows[index]],
            other=dataset.classes[1 - dataset.records[rows[index]].label],
            probability=float(labels.other[index]),
            suspect=bool(labels.suspect[index]),
        )
        for index in chosen
    ]


def _report(found: Findings) -> None:
    """The table on the console, and the first findings of each kind."""
    table = Table("found", "photos", "what", title=Text(f"Audit of {found.source}"), title_justify="left", title_style="bold")
    for kind, meaning in survey.KINDS.items():
        if count := sum(one.kind == kind for one in found.faulty):
            table.add_row(kind, f"{count:,}", meaning)
    for name, groups in (
        ("exact copies", [group for group in found.copies if group.exact]),
        ("near copies", [group for group in found.copies if not group.exact]),
        ("across splits", [group for group in found.copies if group.across]),
        ("opposite labels", [group for group in found.copies if group.opposite]),
    ):
        if groups:
            table.add_row(
                name, f"{sum(len(group.photos) for group in groups):,}", f"in {len(groups):,} group{'s' * (len(groups) > 1)}"
            )
    if found.suspects:
        table.add_row("suspicious labels", f"{found.suspects:,}", f"of {found.judged:,} judged; look at them on the page")
    for one in found.drift:
        told = "another source than the training photos" if one in found.drifted else "none that counts"
        table.add_row(f"drift of {one.split}", "", f"{told}: ROC AUC {one.auc:.3f} ({one.low:.3f} – {one.high:.3f})")
    if table.row_count:
        console.print(table)
    if not found.anything():
        console.print("nothing was found that speaks against training")
    for faulty in found.faulty[:_LISTED]:
        console.print(Text(f"  {faulty.photo.id!r}: {faulty.kind}: {faulty.reason}", "yellow"), soft_wrap=True)
    for group in found.copies[:_LISTED]:
        if group.opposite or group.across:
            names = ", ".join(repr(photo.id) for photo in group.photos)
            console.print(
                Text(f"  {'opposite labels' if group.opposite else 'across splits'}: {names}", "yellow"), soft_wrap=True
            )
    for note in found.notes:
        console.print(note, markup=False, soft_wrap=True)
