"""`catdog audit`: is this data set fit to train on? Broken files, copies, leakage, suspicious labels, drift."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from catdog_jax import __version__, jax_environment
from catdog_jax.auditing import duplicates, file_faults, findings
from catdog_jax.auditing import page as audit_page
from catdog_jax.auditing.findings import Drift, Findings, Suspicion
from catdog_jax.config import AuditConfig
from catdog_jax.console import console, show
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.files import atomic, sealed
from catdog_jax.files.buckets import Location
from catdog_jax.photos import exclude_list, folders, sources
from catdog_jax.photos.sources import Dataset
from catdog_jax.reporting import html

if TYPE_CHECKING:
    from catdog_jax.auditing.label_errors import Labels

FORMAT = 1
FOUND = 3  # the exit status of --strict where something was found
LOOKED_AT = 50  # labels that the page shows at least, the most suspicious ones
_LISTED = 10  # lines of a kind on stdout
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
    dataset = exclude_list.without(sources.load(sources.locate(config.data, config.data_dir), ()), config.exclude)
    found = inspect(dataset, config.features, config.workers, config.seed)
    page = config.out / "audit.html"
    shown = audit_page.render(found, audit_page.thumbnails(dataset, audit_page.shown(found)))
    atomic.write_bytes(page, html.with_seal(shown))
    sealed.write_sealed_json(
        config.out / "audit.json", {"format": FORMAT, "version": __version__} | dataclasses.asdict(found)
    )
    if config.write_exclude is not None:
        exclude_list.write(config.write_exclude, findings.exclude_lines(found))
    _report(found)
    console.print(f"Page: {page}", markup=False, soft_wrap=True)
    if config.write_exclude is not None:
        told = f"Left out by `catdog extract` and `catdog run` with --exclude {config.write_exclude}: "
        console.print(f"{told}{len(exclude_list.read(config.write_exclude)):,} photos", markup=False, soft_wrap=True)
    return FOUND if config.strict and found.anything() else 0


def inspect(dataset: Dataset, features: Location | None = None, workers: int | None = None, seed: int = 0) -> Findings:
    """Everything that can be found out about a data set.

    Args:
      dataset: the photos.
      features: a feature cache that has them, or some of them; without one labels and drift are not
        looked at.
      workers: decoding threads; None for one a core.
      seed: decides the folds.

    Raises:
      CatdogError: the cache is unfinished or damaged, or has none of the photos.
    """
    looks = file_faults.survey(dataset, workers)
    of = findings.photos(dataset)
    faulty = findings.faulty(of, looks)
    found = Findings(dataset.source, dataset.classes, findings.counts(dataset), faulty, (), left_out=dataset.left_out)
    notes = [*dataset.notes, *filter(None, [folders.told(dataset.left_out)])]
    notes += [
        f"No photos of {name!r} in the {split} split: `catdog extract` needs some." for split, name in found.lacking
    ]
    if features is None:
        copies = findings.copies(of, looks, duplicates.find(looks))
        return dataclasses.replace(found, copies=copies, notes=(*notes, _WITHOUT))
    from catdog_jax.auditing import label_errors  # brings JAX, which nothing else here needs
    from catdog_jax.features.cache import FeatureCache

    rows = label_errors.features_of(FeatureCache.open(features), looks)
    if not rows:
        raise CatdogError(
            f"{features}: expected features of photos of {dataset.source}, found those of others. Run `catdog extract` on it."
        )
    groups = duplicates.find(looks, rows)
    found = dataclasses.replace(found, copies=findings.copies(of, looks, groups), judged=len(rows))
    if missing := len(of) - len(rows):
        notes.append(f"{missing:,} of {len(of):,} photos have no features: their labels were not judged.")
    judged = label_errors.judge_labels(dataset, rows, groups, seed)
    if judged is None:
        notes.append(
            f"Labels were not judged: that needs {label_errors.MIN_PHOTOS} photos of each class with features."
        )
        return dataclasses.replace(found, judged=0, notes=tuple(notes))
    labels = judged[0]
    drift = tuple(Drift(*one) for one in label_errors.drifts(dataset, rows, groups, seed))
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
        index
        for place, index in enumerate(order)
        if labels.suspect[index] or (place < LOOKED_AT and labels.other[index] > 0.5)
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
    """The table on stdout, and the first findings of each kind."""
    table = Table(
        "found", "photos", "what", title=Text(f"Audit of {found.source}"), title_justify="left", title_style="bold"
    )
    for kind, meaning in file_faults.KINDS.items():
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
                name,
                f"{sum(len(group.photos) for group in groups):,}",
                f"in {len(groups):,} group{'s' * (len(groups) > 1)}",
            )
    if found.suspects:
        table.add_row(
            "suspicious labels", f"{found.suspects:,}", f"of {found.judged:,} judged; look at them on the page"
        )
    for one in found.drift:
        told = "another source than the training photos" if one in found.drifted else "none that counts"
        table.add_row(f"drift of {one.split}", "", f"{told}: ROC AUC {one.auc:.3f} ({one.low:.3f} – {one.high:.3f})")
    if table.row_count:
        show(table)
    if not found.anything():
        show("nothing was found that speaks against training")
    _list([f"{one.photo.id!r}: {one.kind}: {one.reason}" for one in found.faulty])
    _list(
        [
            f"{'opposite labels' if group.opposite else 'across splits'}: {', '.join(repr(photo.id) for photo in group.photos)}"
            for group in found.copies
            if group.opposite or group.across
        ]
    )
    for note in found.notes:
        show(note)


def _list(lines: Sequence[str]) -> None:
    """The first findings of a kind, and how many more there are."""
    for line in lines[:_LISTED]:
        show(Text(f"  {line}", "yellow"))
    if len(lines) > _LISTED:
        show(f"  … {len(lines) - _LISTED:,} more are in audit.json")
