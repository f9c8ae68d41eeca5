"""The tables of the experiments: the bytes of a CSV, and rows that come back from it."""

from pathlib import Path
from typing import NamedTuple

import pytest

from scripts.experiments import coverage, small, tables


class Row(NamedTuple):
    name: str
    count: int
    share: float


ROWS = [Row("a", 3, 2 / 3), Row('b, "c"', 12345678, 1.0)]


@pytest.mark.parametrize(
    ("digits", "first", "second"), [(4, "0.6667", "1"), (5, "0.66667", "1"), (None, str(2 / 3), "1.0")]
)
def test_floats_have_so_many_digits_and_other_cells_stay(digits, first, second):
    expected = f'name,count,share\na,3,{first}\n"b, ""c""",12345678,{second}\n'
    assert tables.as_csv(Row._fields, ROWS, digits) == expected.encode()


def test_rows_come_back_with_their_types(tmp_path):
    assert tables.read(tmp_path / "rows.csv", Row) == []
    (tmp_path / "rows.csv").write_bytes(tables.as_csv(Row._fields, ROWS))
    assert tables.read(tmp_path / "rows.csv", Row) == ROWS
    (tmp_path / "rows.csv").write_bytes(tables.as_csv(Row._fields, []))
    assert tables.read(tmp_path / "rows.csv", Row) == []


@pytest.mark.parametrize(("name", "kind", "digits"), [("small", small.Row, 5), ("coverage", coverage.Row, None)])
def test_published_tables_are_written_again_as_they_are(name, kind, digits):
    path = Path(__file__).parents[2] / "artifacts" / "small" / f"{name}.csv"
    rows = tables.read(path, kind)
    assert rows
    assert tables.as_csv(kind._fields, rows, digits) == path.read_bytes()
