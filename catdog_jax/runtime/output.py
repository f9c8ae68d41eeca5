"""Predictions as text for stdout: a table, JSON lines or CSV, whatever the photos are called."""

import csv
import io
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from catdog_jax.console import as_text, printable
from catdog_jax.runtime.decision import said

Row = dict[str, Any]  # see `prediction.predictions`


def rendered(form: str, classes: tuple[str, str], batches: Iterable[list[Row]]) -> Iterator[str]:
    """The text of the predictions, a piece for each batch; of a table, all at the end."""
    match form:
        case "jsonl":
            return _json_lines(batches)
        case "csv":
            return _csv_lines(classes, batches)
        case _:
            return _table(batches)


def _json_lines(batches: Iterable[list[Row]]) -> Iterator[str]:
    for batch in batches:
        yield "".join(json.dumps(row) + "\n" for row in batch)


def _csv_lines(classes: tuple[str, str], batches: Iterable[list[Row]]) -> Iterator[str]:
    yield _csv_text(
        [["path", "class", "probability", *(f"probability_{name}" for name in classes), "error", "sure", "why"]]
    )
    for batch in batches:
        yield _csv_text([_csv_row(classes, row) for row in batch])


def _csv_row(classes: tuple[str, str], row: Row) -> list[Any]:
    path = row["path"]
    if path[0] in "=+-@\t\r":  # a spreadsheet would take it for a formula; "./" before it names the same photo
        path = os.path.join(".", path)
    probabilities = row.get("probabilities", {})
    values = [row.get("class", ""), row.get("probability", ""), *(probabilities.get(name, "") for name in classes)]
    sure = {True: "true", False: "false", None: ""}[row.get("sure")]
    return [path, *values, row.get("error", ""), sure, row.get("why", "")]


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
        cells = [row["error"], ""] if "error" in row else [said(row["class"], row["sure"]), f"{row['probability']:.4f}"]
        style = "red" if "error" in row else "yellow" if row["sure"] is False else None
        table.add_row(*(Text(printable(cell)) for cell in (row["path"], *cells)), style=style)
    yield as_text(table)
