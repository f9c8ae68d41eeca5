"""What the stages print: results on stdout by `show` and `write`; all else on stderr, by `console`.

Results are for pipes too: there a table is neither cut nor folded at 80 columns, and has no
colours.
"""

import contextlib
import logging
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from catdog_jax.errors import CatdogError

_UNCUT = 10_000  # columns
_progress = True
_remarks = True
console = Console(stderr=True, highlight=False)


def printable(text: str) -> str:
    """The text with escapes for what would break a line, steer the terminal, or cannot be encoded."""
    kept = (
        c if c.isprintable() or unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode() for c in text
    )
    return "".join(kept)  # spaces of any width (Zs) break no line


def show(result: RenderableType) -> None:
    """Prints a result on stdout, at once: a table or a line of text. Raises as `write`."""
    write(as_text(result))


def as_text(result: RenderableType) -> str:
    """A table or a line as stdout wants it: coloured and folded for a terminal, plain and as wide as it is for a pipe."""
    terminal = Console(highlight=False)
    if not terminal.is_terminal:
        terminal.width = _UNCUT
    line = Text(printable(result)) if isinstance(result, str) else result
    with terminal.capture() as captured:
        terminal.print(line, soft_wrap=isinstance(line, Text))
    return captured.get()


def write(text: str) -> None:
    """Writes to stdout at once, with escapes for what its encoding lacks.

    Raises:
      BrokenPipeError: the reader of stdout went away; `cli.main` makes an exit status of it.
      CatdogError: stdout cannot be written.
    """
    try:
        if sys.stdout is None:
            raise OSError("it is closed")
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()
        raise
    except OSError as error:
        discard_stdout()
        raise CatdogError(
            f"standard output: cannot be written: {error.strerror or error}. Free space, or send it elsewhere."
        ) from None


def discard_stdout() -> None:
    """Keeps the interpreter from failing a second time, when it flushes stdout at its end."""
    with contextlib.suppress(OSError, AttributeError):  # stdout that is no file, or none, needs none of this
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class RateColumn(ProgressColumn):
    """Items per second of a task, with the task's unit."""

    def __init__(self, unit: str):
        super().__init__(table_column=Column(no_wrap=True))
        self._unit = unit

    def render(self, task: Task) -> Text:
        """The rate as text; empty until it is known."""
        speed = task.finished_speed or task.speed
        return Text("" if not speed else f"{speed:,.1f} {self._unit}/s", style="progress.data.speed")


def show_progress(on: bool) -> None:
    """Switches the progress bars of all later calls on or off; they are on, in terminals and in notebooks.

    Example:
      >>> import catdog_jax as cd
      >>> cd.show_progress(False)
    """
    global _progress
    _progress = on


def progress_bar(unit: str) -> Progress:
    """A progress display with a bar, the count, the rate in `unit`/s and the time left. Use it as a context manager."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        RateColumn(unit),
        TimeRemainingColumn(),
        console=console,
        disable=not _progress,
    )


def say(line: str, style: str = "") -> None:
    """Prints a line on stderr as it is: not folded, nothing taken for markup, with escapes as of `printable`."""
    if _remarks:
        console.print(Text(printable(line), style), soft_wrap=True)


@contextlib.contextmanager
def quiet(on: bool) -> Iterator[None]:
    """Keeps what `say` prints, and progress bars, from stderr. Results and errors stay."""
    global _progress, _remarks
    before = _progress, _remarks
    if on:
        _progress = _remarks = False
    try:
        yield
    finally:
        _progress, _remarks = before


@contextlib.contextmanager
def quieted(logger: str | None = None) -> Iterator[None]:
    """Keeps the remarks of a library's logger, or of the root's, from the terminal, but for errors."""
    noisy = logging.getLogger(logger)
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        yield
    finally:
        noisy.setLevel(level)


def warn(sentences: Iterable[str]) -> None:
    """Prints what a result does not tell, with the result: a line each on stdout. Raises as `write`."""
    for sentence in sentences:
        show(Text(printable(sentence), "yellow"))
