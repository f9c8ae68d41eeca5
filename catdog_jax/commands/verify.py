"""`catdog verify`: is everything that was written still what was written? `stored_files` knows what there is to check."""

from collections import defaultdict

from rich.table import Table
from rich.text import Text

from catdog_jax.config import VerifyConfig
from catdog_jax.console import printable, progress_bar, show
from catdog_jax.errors import CatdogError
from catdog_jax.files.buckets import Location, UnreachableError
from catdog_jax.heads.run_directory import OtherHeadError
from catdog_jax.stored_files import Remark, checks_of

_NAMED = 5  # files of a remark


def verify(config: VerifyConfig) -> int:
    """Checks every file, and prints a table of those as they were written and a line for each that is not.

    Returns:
      0, or 1 where something is missing, altered, or of another head than the one beside it.

    Raises:
      CatdogError: a path is none of what can be verified, or its bucket cannot be reached.
    """
    checks = [check for path in config.paths for check in checks_of(path)]
    sums: dict[tuple[Location, str], tuple[int, int]] = {}
    remarks: dict[tuple[Location, str], list[str]] = defaultdict(list)
    faults: list[str] = []
    with progress_bar("files") as progress:
        for place, kind, run in progress.track(checks, description="verify"):
            try:
                size = run()
            except UnreachableError:  # no word on what is there
                raise
            except Remark as remark:
                why, name = remark.args
                remarks[place, why].append(name)
            except CatdogError as error:
                faults.append(f"{'of another head' if isinstance(error, OtherHeadError) else 'altered'}: {error}")
            else:
                count, total = sums.get((place, kind), (0, 0))
                sums[place, kind] = count + 1, total + size
    if sums:
        show(_table(sums))
    for (place, why), names in remarks.items():
        show(Text(printable(f"{why}: {place}: {', '.join(names[:_NAMED])}{_more(names)}"), "yellow"))
    for fault in faults:
        show(Text(printable(fault), "bold red"))
    return 1 if faults else 0


def _more(names: list[str]) -> str:
    return f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""


def _table(sums: dict[tuple[Location, str], tuple[int, int]]) -> Table:
    table = Table("as it was written", "", "", "bytes", title="verified")
    for (path, kind), (count, size) in sums.items():
        table.add_row(Text(printable(str(path))), f"{count:,}", kind if count == 1 else f"{kind}s", f"{size:,}")
    return table
