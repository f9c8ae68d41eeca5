"""Predictions as text, a table, JSON lines or CSV, and as a file, of Parquet too, whatever the photos are called."""

import csv
import io
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from rich.table import Table
from rich.text import Text

from catdog_jax.console import as_text, printable
from catdog_jax.errors import UsageError
from catdog_jax.files import atomic
from catdog_jax.photos import decoding
from catdog_jax.runtime.decision import said
from catdog_jax.runtime.inputs import STDIN

Row = dict[str, Any]  # see `arguments.predictions`
FILES = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}  # the suffix of a file of results -> its form
_GROUP = 4096  # rows of a row group in Parquet


def form_of(form: str | None, out: Path | None) -> str:
    """The form of the results: the one that is named, else what the suffix of the file says, else a table.

    Raises:
      UsageError: a file is named whose suffix says nothing or is a photo's, a table is to be a file,
        or Parquet is not to be one, or pyarrow is not installed.
    """
    if out is None:
        if form == "parquet":
            raise UsageError("--format parquet: expected a file to write, found stdout. Name one: --out FILE.parquet.")
        return form or "table"
    if out.suffix.lower() in decoding.SUFFIXES:
        raise UsageError(f"--out {out}: expected the name of a table, found that of a photo. Name a .csv file.")
    chosen = form or FILES.get(out.suffix.lower())
    if chosen is None:
        raise UsageError(
            f"--out {out}: expected {', '.join(FILES)}, found {out.suffix or 'no suffix'!r}. Rename it, or add --format."
        )
    if chosen == "table":
        raise UsageError(
            f"--out {out}: expected --format {', '.join(FILES.values())}, found table. Leave out one of the two."
        )
    if chosen == "parquet":
        _pyarrow()
    return chosen


def write_file(
    path: Path, form: str, classes: tuple[str, str], batches: Iterable[list[Row]], columns: tuple[str, ...] = ()
) -> None:
    """Writes predictions into a file, atomically: it takes its name when the last is there.

    `columns` are further ones that rows may have, as in `rendered`.

    Raises:
      CatdogError: the file cannot be written.
      UsageError: the form is parquet, and pyarrow is not installed.
    """
    with atomic.atomic_writer(path) as file:
        if form == "parquet":
            _write_parquet(file, classes, batches, columns)
            return
        for text in rendered(form, classes, batches, columns):
            file.write(text.encode("utf-8", "backslashreplace"))


def rendered(
    form: str, classes: tuple[str, str], batches: Iterable[list[Row]], columns: tuple[str, ...] = ()
) -> Iterator[str]:
    """The text of the predictions, a piece for each batch; of a table, all at the end.

    `form` is table, lines (a line a photo, at once), jsonl or csv. `columns` are those that CSV has
    beside the ones that it always has.
    """
    match form:
        case "jsonl":
            return _json_lines(batches)
        case "csv":
            return _csv_lines(classes, batches, columns)
        case "lines":
            return _lines(batches)
        case _:
            return _table(batches)


def _lines(batches: Iterable[list[Row]]) -> Iterator[str]:
    for batch in batches:
        yield "".join("  ".join([printable(row["path"]), *_said(row)]).rstrip() + "\n" for row in batch)


def _json_lines(batches: Iterable[list[Row]]) -> Iterator[str]:
    for batch in batches:
        yield "".join(json.dumps(row) + "\n" for row in batch)


def _columns(classes: tuple[str, str], further: tuple[str, ...]) -> list[str]:
    by_class = (f"probability_{name}" for name in classes)
    return ["path", "class", "probability", *by_class, "error", "sure", "why", *further]


def _csv_lines(classes: tuple[str, str], batches: Iterable[list[Row]], columns: tuple[str, ...]) -> Iterator[str]:
    yield _csv_text([_columns(classes, columns)])
    for batch in batches:
        yield _csv_text([_csv_row(classes, row, columns) for row in batch])


def _csv_row(classes: tuple[str, str], row: Row, columns: tuple[str, ...]) -> list[Any]:
    path = apart(row["path"])
    probabilities = row.get("probabilities", {})
    values = [row.get("class", ""), row.get("probability", ""), *(probabilities.get(name, "") for name in classes)]
    said = [_csv_value(row.get(name, "")) for name in ("sure", "why", *columns)]
    return [path, *values, row.get("error", ""), *said]


def _csv_value(value: Any) -> Any:
    """A cell: true, false, or empty where nothing is known."""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else "" if value is None else value


def apart(path: str) -> str:
    """A path as CSV has it: a spreadsheet would take some for a formula; "./" before it names the same photo."""
    return os.path.join(".", path) if path[:1] in tuple("=+-@\t\r") and path != STDIN else path


def _csv_text(rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _table(batches: Iterable[list[Row]]) -> Iterator[str]:
    table = Table()
    table.add_column("photo", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right")
    for row in itertools.chain.from_iterable(batches):  # as Text, because a name like "[red].jpg" is no markup
        cells = _said(row)
        doubtful = row.get("neither") or row.get("sure") is False
        style = "red" if "error" in row else "yellow" if doubtful else None
        table.add_row(*(Text(printable(cell)) for cell in (row["path"], *cells)), style=style)
    yield as_text(table)


def _said(row: Row) -> list[str]:
    """What a table says of a photo: the class and its probability, or why there is none."""
    if "error" in row:
        return [row["error"], ""]
    return [said(row["class"], row["sure"], row.get("neither")), f"{row['probability']:.4f}"]


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError(
            "--format parquet: expected the package pyarrow, found that it is not installed. Run: pip install pyarrow; or "
            "write a .csv."
        ) from None
    return pyarrow, parquet


def _write_parquet(
    file: IO[bytes], classes: tuple[str, str], batches: Iterable[list[Row]], columns: tuple[str, ...]
) -> None:
    pyarrow, parquet = _pyarrow()
    names = _columns(classes, columns)
    kinds = {name: pyarrow.float64() for name in names if name.startswith("probability")}
    kinds |= {"strangeness": pyarrow.float64(), "sure": pyarrow.bool_(), "neither": pyarrow.bool_()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in names])
    rows = (_flat(row, classes) for row in itertools.chain.from_iterable(batches))
    with parquet.ParquetWriter(file, schema) as writer:
        while group := list(itertools.islice(rows, _GROUP)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


def _flat(row: Row, classes: tuple[str, str]) -> Row:
    by_class = {f"probability_{name}": row.get("probabilities", {}).get(name) for name in classes}
    # What is no UTF-8 in a name is escaped, as on stdout
    texts = {
        key: value.encode("utf-8", "backslashreplace").decode() for key, value in row.items() if type(value) is str
    }
    return {**row, **by_class, **texts}
