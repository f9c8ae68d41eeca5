"""A table that names each photo and its label, as a data set: .csv, .tsv, .jsonl or .parquet.

    path,label,split,group
    img/001.jpg,cat,train,Tom

Paths are relative to the table's folder. `split` and `group` may lack; splits that no row names are
drawn (see `splitting`). A row's number is the one that an editor shows: the header is row 1, and a
line of JSON is its line. In parquet files the first photo is row 1.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.files import atomic
from catdog_jax.photos import exclude_list, folders, splitting
from catdog_jax.photos.dataset import SPLITS, is_class_name
from catdog_jax.photos.layout import split_named
from catdog_jax.photos.splitting import Found

_COLUMNS = {  # what a column holds -> its names, in lower case without "_", "-" and spaces
    "path": ("path", "file", "filename", "image"),
    "label": ("label", "class"),
    "split": ("split",),
    "group": ("group",),
}
_MAX_BYTES = 2**28
_SHOWN = 3  # missing files that an error names
_Cells = Mapping[str, Any]  # by the name of the column, as the table has it


class _Row(NamedTuple):
    """A photo as the table names it.

    Attributes:
      number: the row.
      label: as it is written.
      split: one of `SPLITS`, or None.
      group: as it is written, or None.
    """

    number: int
    label: str
    split: str | None
    group: str | None


def load(source: str, needed: Sequence[str] = SPLITS) -> Found:
    """Finds the photos that a table names.

    Args:
      source: the table's path; its suffix is one of `READERS`.
      needed: not asked here.

    Raises:
      CatdogError: the table cannot be read; or a row is wrong, which is named with its column; or
        files are missing; or there are not two labels.
      UsageError: it is a parquet file, and pyarrow is not installed.
    """
    table = Path(source)
    if not table.is_file():
        found = "a folder" if table.is_dir() else "nothing"
        raise CatdogError(f"{table}: expected a table of photos, found {found}. Check --data.")
    rows = _rows(table)
    classes = _two_labels(table, rows)
    _check_files(table, rows)
    splits = _lacking(table, rows)
    records = [
        folders.record_of(table.parent, name, classes.index(row.label), row.split or "train", row.group)
        for name, row in rows.items()
    ]
    return Found(
        source,
        source,
        classes,
        records,
        "Add rows of them, name the splits in a column, or make the groups smaller.",
        lacking=splits,
        names_splits=any(row.split for row in rows.values()),
    )


def _rows(table: Path) -> dict[str, _Row]:
    """The rows by the path of their photo."""
    rows: dict[str, _Row] = {}
    shared: dict[str | None, str | None] = {}  # one text for all photos of a label or a group
    columns: dict[tuple[str, ...], dict[str, str]] = {}
    for number, cells in READERS[table.suffix.lower()](table):
        names = tuple(cells)
        if names not in columns:
            columns[names] = _columns(table, number, names)
        found = {role: _text(cells[name], f"{table}, row {number}, {role}") for role, name in columns[names].items()}
        label, split, group = (shared.setdefault(text, text) for text in map(found.get, ("label", "split", "group")))
        _add(table, rows, found["path"], _Row(number, label or "", split or None, group or None))
    if not rows:
        raise CatdogError(f"{table}: expected rows of photos, found none. Write one row for each photo.")
    return rows


def _add(table: Path, rows: dict[str, _Row], path: str, row: _Row) -> None:
    """Takes a row that is as it must be."""
    where = f"{table}, row {row.number}"
    if not path:
        raise CatdogError(f"{where}, path: expected the path of a photo, found nothing. Fill it in.")
    if not row.label:
        raise CatdogError(f"{where}, label: expected a label, found nothing. Fill it in, or remove the row.")
    if not is_class_name(row.label):
        raise CatdogError(f"{where}, label: expected text without control characters, found {row.label!r}. Correct it.")
    if row.split:
        split = split_named(row.split)
        if split is None:
            expected = ", ".join(SPLITS[:-1]) + f" or {SPLITS[-1]}"
            raise CatdogError(f"{where}, split: expected {expected}, found {row.split!r}. Correct it.")
        row = row._replace(split=split)
    name = Path(os.path.normpath(path)).as_posix()
    before = rows.get(name)
    if before is not None and before.label != row.label:
        raise CatdogError(
            f"{where}, label: expected one label for {name!r}, found {row.label!r}, and {before.label!r} in row "
            f"{before.number}. Correct one of them."
        )
    if before is not None:
        raise CatdogError(
            f"{where}, path: expected each photo once, found {name!r} in row {before.number} too. Remove one of them."
        )
    rows[name] = row


def _columns(table: Path, number: int, names: Sequence[str]) -> dict[str, str]:
    """What each column holds -> its name here."""
    where, columns, unknown = f"{table}, row {number}", dict[str, str](), []
    for name in names:
        plain = "".join(c for c in str(name).lower() if c not in "_- ")
        role = next((role for role, known in _COLUMNS.items() if plain in known), None)
        if role is None:
            unknown.append(name)
        elif role in columns:
            raise CatdogError(
                f"{where}: expected one column {role}, found {columns[role]!r} and {name!r}. Remove one of them."
            )
        else:
            columns[role] = name
    lacking = [role for role in ("path", "label") if role not in columns]
    if lacking or unknown:
        found = ", ".join(map(repr, unknown or names)) + (" too" if not lacking else "") if names else "none"
        raise CatdogError(
            f"{where}: expected the columns path (or file, filename, image), label (or class) and perhaps split and "
            f"group, found {found}. {'Write them into the header' if lacking else 'Remove what is not one of these'}."
        )
    return columns


def _text(value: object, where: str) -> str:
    """A cell as text; empty where there is nothing in it."""
    match value:
        case str():
            return value.strip()
        case int():
            return str(value)
        case float() if value.is_integer():
            return str(int(value))
        case None:
            return ""
        case float() if value != value:  # how pandas writes that there is nothing
            return ""
    raise CatdogError(f"{where}: expected text, found {type(value).__name__}. Correct it.")


def _two_labels(table: Path, rows: Mapping[str, _Row]) -> tuple[str, str]:
    labels: list[str] = []
    for row in rows.values():
        if row.label not in labels:
            labels.append(row.label)
        if len(labels) > 2:
            raise CatdogError(
                f"{table}, row {row.number}, label: expected {labels[0]!r} or {labels[1]!r}, as in the rows before, "
                f"found {row.label!r}. Keep two: to train one against the rest, give all the others the same label."
            )
    if len(labels) < 2:
        raise CatdogError(f"{table}: expected two labels, found {labels[0]!r} alone. Add photos of another label.")
    first, second = sorted(labels)
    return first, second


def _check_files(table: Path, rows: Mapping[str, _Row]) -> None:
    missing = [f"{name!r} (row {row.number})" for name, row in rows.items() if not (table.parent / name).is_file()]
    if missing:
        more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
        raise CatdogError(
            f"{table}, path: expected {len(rows):,} files, relative to {table.parent}, found that {len(missing):,} "
            f"are missing: {', '.join(missing[:_SHOWN])}{more}. Correct the paths, or remove the rows."
        )


def _lacking(table: Path, rows: Mapping[str, _Row]) -> tuple[str, ...]:
    """The splits to draw: those that no row names. Either all rows name one, or none does."""
    splits = {row.split for row in rows.values()}
    if len(splits) > 1 and None in splits:
        number = next(row.number for row in rows.values() if row.split is None)
        raise CatdogError(
            f"{table}, row {number}, split: expected a split, as other rows have one, found nothing. Fill it in, or "
            f"remove the column."
        )
    return splitting.lacking(tuple(splits))


def _read_text(table: Path) -> str:
    try:
        content = atomic.read_regular(table, _MAX_BYTES)
        if content is None:
            raise CatdogError(f"{table}: expected at most {_MAX_BYTES:,} bytes, found more. Divide the table.")
        return exclude_list.text(content)
    except OSError as error:
        raise CatdogError(f"{table}: expected a table, found: {error.strerror}. Check its permissions.") from None
    except UnicodeDecodeError:
        raise CatdogError(f"{table}: expected UTF-8 or UTF-16, found other bytes. Save it as UTF-8.") from None


def _separated(table: Path) -> Iterator[tuple[int, _Cells]]:
    """A .csv with commas or, as some spreadsheets write it, semicolons; or a .tsv."""
    text = _read_text(table)
    comma = max(",;\t", key=text.partition("\n")[0].count)
    header: list[str] | None = None
    try:
        for number, cells in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=comma, strict=True), 1):
            if not any(map(str.strip, cells)):
                continue
            if header is None:
                _columns(table, number, cells)
                header = cells
            elif len(cells) != len(header):
                raise CatdogError(
                    f"{table}, row {number}: expected {len(header)} cells, as the header has, found {len(cells)}. Put "
                    f'cells that hold {comma!r} in quotes (").'
                )
            else:
                yield number, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise CatdogError(f"{table}: expected a table of cells, found: {error}. Save it again as CSV.") from None


def _json_lines(table: Path) -> Iterator[tuple[int, _Cells]]:
    for number, line in enumerate(_read_text(table).split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError):
            cells = None
        if not isinstance(cells, dict):
            raise CatdogError(f"{table}, row {number}: expected a JSON object, found {line[:40]!r}. Correct it.")
        yield number, cells


def _parquet(table: Path) -> Iterator[tuple[int, _Cells]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise UsageError(
            f"--data {table}: expected the package pyarrow, found that it is not installed. Run: pip install pyarrow; or "
            f"save the table as .csv."
        ) from None
    try:
        with parquet.ParquetFile(table) as file:
            _columns(table, 1, file.schema_arrow.names)
            rows: Iterable[_Cells] = (row for batch in file.iter_batches() for row in batch.to_pylist())
            yield from enumerate(rows, 1)
    except (OSError, pyarrow.ArrowException) as error:
        raise CatdogError(f"{table}: expected a parquet file, found: {str(error).splitlines()[0]}.") from None


READERS: dict[str, Callable[[Path], Iterator[tuple[int, _Cells]]]] = {
    ".csv": _separated,
    ".tsv": _separated,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
