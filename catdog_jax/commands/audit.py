"""`catdog audit`: looks at a data set, prints what it found, writes the page and the list."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from catdog_jax import jax_environment
from catdog_jax.auditing.audit import audit as audit_photos
from catdog_jax.auditing.findings import Findings
from catdog_jax.config import AuditConfig
from catdog_jax.console import say, show
from catdog_jax.photos import exclude_list, sources

FOUND = 3  # the exit status of --strict where something was found
_LISTED = 10  # lines of a kind on stdout


def audit(config: AuditConfig) -> int:
    """Audits a data set, prints what was found, and writes audit.html, audit.json and, if asked, the exclude file.

    Returns:
      The exit status: `FOUND` with --strict where something was found, else 0.

    Raises:
      CatdogError: there is no usable data set or cache, or a file cannot be written.
      UsageError: no data set is named.
    """
    if config.features is not None:
        jax_environment.require_devices()
    dataset = exclude_list.without(sources.load(sources.locate(config.data, config.data_dir), ()), config.exclude)
    findings = audit_photos(dataset, features=config.features, workers=config.workers, seed=config.seed)
    page = findings.save(config.out)
    if config.write_exclude is not None:
        findings.save_exclude(config.write_exclude)
    _report(findings)
    say(f"Page: {page}")
    if config.write_exclude is not None:
        told = f"Left out by `catdog extract` and `catdog run` with --exclude {config.write_exclude}: "
        say(f"{told}{len(exclude_list.read(config.write_exclude)):,} photos")
    return FOUND if config.strict and findings.anything() else 0


def _report(findings: Findings) -> None:
    """The table on stdout, and the first findings of each kind."""
    title = Text(f"Audit of {findings.source}")
    table = Table("found", "photos", "what", title=title, title_justify="left", title_style="bold")
    for row in (row for check in findings.checks for row in check.rows()):
        table.add_row(*row)
    if table.row_count:
        show(table)
    if not findings.anything():
        show("nothing was found that speaks against training")
    for check in findings.checks:
        _list(check.lines())
    for note in findings.notes:
        show(note)


def _list(lines: Sequence[str]) -> None:
    """The first findings of a kind, and how many more there are."""
    for line in lines[:_LISTED]:
        show(Text(f"  {line}", "yellow"))
    if len(lines) > _LISTED:
        show(f"  … {len(lines) - _LISTED:,} more are in audit.json")
