"""The tables of the experiments, as CSV: a heading, and a row a named tuple."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

Row = TypeVar("Row")


def as_csv(heading: Sequence[str], rows: Iterable[Iterable[Any]], digits: int | None = None) -> bytes:
    """The rows below their heading, as CSV.

    Args:
      heading: a title a column.
      rows: cells of any kind.
      digits: how many significant digits floats have; by default all that Python shows.
    """
    form = "" if digits is None else f".{digits}g"
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows([format(cell, form) if isinstance(cell, float) else cell for cell in row] for row in rows)
    return text.getvalue().encode()


def read(path: Path, kind: Callable[..., Row]) -> list[Row]:
    """The rows of a file of `as_csv`, so that a run goes on from them; none where there is no file.

    Args:
      path: the file, whose titles are the fields of `kind`.
      kind: the class of the rows, a NamedTuple whose fields are str, int or float.
    """
    if not path.exists():
        return []
    types = get_type_hints(kind)
    with open(path, newline="", encoding="utf-8") as file:
        return [kind(**{name: types[name](cell) for name, cell in row.items()}) for row in csv.DictReader(file)]
