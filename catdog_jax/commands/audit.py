"""`catdog audit`: looks at a data set, prints what it found, writes the page and the list."""

import dataclasses
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from catdog_jax import __version__, jax_environment
from catdog_jax.auditing import file_faults, findings
from catdog_jax.auditing import page as audit_page
from catdog_jax.auditing.audit import FORMAT, FOUND, inspect
from catdog_jax.auditing.findings import Findings
from catdog_jax.config import AuditConfig
from catdog_jax.console import console, show
from catdog_jax.errors import UsageError
from catdog_jax.files import atomic, sealed
from catdog_jax.photos import exclude_list, sources
from catdog_jax.reporting import html

_LISTED = 10  # lines of a kind on stdout


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
