"""`catdog similar`: the photos that look most like a photo."""

import csv
import io
import json
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from catdog_jax.auditing.similar import COPY, look_in, remarks
from catdog_jax.config import SimilarConfig
from catdog_jax.console import as_text, printable, quiet, say, warn, write
from catdog_jax.errors import UsageError
from catdog_jax.runtime import embeddings
from catdog_jax.runtime.arguments import opened
from catdog_jax.runtime.inputs import digest, find_photos, named
from catdog_jax.runtime.output import apart

_COLUMNS = ("photo", "similarity", "id", "label", "same", "error")


def similar(config: SimilarConfig) -> int:
    """Prints the nearest photos to each photo, and what they say of its label.

    Returns:
      The exit status: 0, or 1 if a photo could not be read (it is listed with the reason).

    Raises:
      CatdogError: there are no photos, the model cannot be used, or there is nothing to look in.
      UsageError: a setting is missing or out of range, or a path is a URL.
    """
    with quiet(config.quiet):
        if config.among is None:
            raise UsageError(
                "--among: expected a feature cache or an embeddings.npy, found none named. Give --among PATH; `catdog embed` "
                "makes one of any photos."
            )
        photos = find_photos(config.paths, config.list, config.null)
        known = look_in(config.among)
        predictor = opened(config)
        embeddings.check_comparable(known, config.among, predictor)
        rows: list[dict[str, Any]] = []
        said: list[str] = []
        for photo, row in predictor.stream_embeddings(photos):
            if not isinstance(row, np.ndarray):
                rows.append({"photo": named(photo), "error": str(row)})
                continue
            (found,) = embeddings.nearest(row[np.newaxis], known, config.top, [digest(photo)])
            rows += [{"photo": named(photo), **near.row()} for near in found]
            said += remarks(named(photo), found)
        write(_rendered(config.format, rows))
        if config.format == "table":
            warn(said)
        unreadable = sum("error" in row for row in rows)
        say(
            f"{len(photos):,} photos on {predictor.device} among {len(known.ids):,} of {config.among}: "
            f"{unreadable:,} unreadable"
        )
        return 1 if unreadable else 0


def _rendered(form: str, rows: list[dict[str, Any]]) -> str:
    if form == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows)
    if form == "csv":
        text = io.StringIO()
        lines = csv.DictWriter(text, _COLUMNS, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        lines.writeheader()
        for row in rows:
            same = {True: "true", False: "false", None: ""}[row.get("same")]
            lines.writerow({**row, "photo": apart(row["photo"]), "id": apart(row.get("id", "")), "same": same})
        return text.getvalue()
    return as_text(_table(rows))


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table()
    for name in ("photo", "similarity", "id", "label"):
        table.add_column(name, overflow="fold", justify="right" if name == "similarity" else "left")
    table.add_column("")
    before = None
    for row in rows:
        photo = row["photo"] if row["photo"] != before else ""
        if before is not None and photo:
            table.add_section()
        before = row["photo"]
        if "error" in row:
            table.add_row(*(Text(printable(cell)) for cell in (photo, "", row["error"])), style="red")
            continue
        note = "the same file" if row["same"] else "a copy?" if row["similarity"] >= COPY else ""
        cells = (photo, f"{row['similarity']:.4f}", row["id"], row["label"] or "", note)
        table.add_row(*(Text(printable(cell)) for cell in cells), style="yellow" if note else None)
    return table
