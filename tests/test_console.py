"""Results on stdout, everything else on stderr: whole and plain in a pipe, as wide as the terminal on one."""

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console
from rich.table import Table

from catdog_jax import cli, console
from catdog_jax.errors import CatdogError

LONG = "photos/" + "a-long-name/" * 20 + "[red]cat.jpg"


def table() -> Table:
    shown = Table("photo", title="[bold]title[/]")
    shown.add_row(LONG.replace("[", r"\["), style="red")
    return shown


def test_a_piped_table_is_neither_cut_nor_folded_nor_coloured(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    console.show(table())
    out, err = capsys.readouterr()
    assert LONG in out
    assert "\x1b" not in out
    assert err == ""
    assert max(map(len, out.splitlines())) < len(LONG) + 10  # not filled up to some width either


def test_a_terminal_gets_its_width_and_colours(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = console.as_text(table())
    assert "\x1b[" in text
    assert LONG not in text


def test_a_line_is_one_line_whatever_is_in_it(capsys):
    console.show("[bold]x[/] \x1b]0;t\x07\n" + LONG)
    assert capsys.readouterr().out == r"[bold]x[/] \x1b]0;t\x07\n" + LONG + "\n"


def test_what_an_encoding_lacks_is_escaped(monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    console.show("café – \udcff")
    assert stdout.buffer.getvalue() == rb"caf\xe9 \u2013 \udcff" + b"\n"


def test_no_stdout_at_all_is_an_error_of_one_line(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(CatdogError, match=r"^standard output: cannot be written: it is closed\. Free space, or"):
        console.show("x")


def test_a_reader_that_goes_away_is_a_status(capsys, monkeypatch):
    def gone(_):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("catdog_jax.commands.train.train", gone)
    assert cli.main(["train"]) == cli.BROKEN_PIPE == 141
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(os.name != "posix", reason="needs pipes of POSIX")
def test_head_ends_any_stage_without_a_traceback():
    """The reader is gone before the first line, as `| head -1` is before the second."""
    code = (
        "import sys\nfrom catdog_jax import cli, console\nfrom catdog_jax.commands import predict\n"
        "def shows(_):\n    console.console.print('a note')\n    console.show('a result')\n"
        "predict.predict = shows\nsys.exit(cli.main(['predict', 'x.jpg']))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "a note\n")


def test_spaces_of_any_width_are_printed_and_what_breaks_a_line_is_not():
    assert console.printable("98.85\u202f% of\u00a0them") == "98.85\u202f% of\u00a0them"
    assert console.printable("a\u2028b\nc\x1b") == r"a\u2028b\nc\x1b"
