"""`catdog verify`: is everything that was written still what was written? `stored_files` knows what there is to check."""

from rich.table import Table
from rich.text import Text

from catdog_jax import stored_files
from catdog_jax.config import VerifyConfig
from catdog_jax.console import printable, show
from catdog_jax.files.buckets import Location

_NAMED = 5  # files of a remark


def verify(config: VerifyConfig) -> int:
    """Checks every file, and prints a table of those as they were written and a line for each that is not.

    Returns:
      0, or 1 where something is missing, altered, or of another head than the one beside it.

    Raises:
      CatdogError: a path is none of what can be verified, or its bucket cannot be reached.
    """
    result = stored_files.verify(config.paths)
    if result.whole:
        show(_table(result.whole))
    for (place, why), names in result.remarks.items():
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        show(Text(printable(f"{why}: {place}: {', '.join(names[:_NAMED])}{more}"), "yellow"))
    for fault in result.faults:
        show(Text(printable(fault), "bold red"))
    return 1 if result.faults else 0


def _table(whole: dict[tuple[Location, str], tuple[int, int]]) -> Table:
    table = Table("as it was written", "", "", "bytes", title="verified")
    for (path, kind), (count, size) in whole.items():
        table.add_row(Text(printable(str(path))), f"{count:,}", kind if count == 1 else f"{kind}s", f"{size:,}")
    return table
