"""What the stages show while they work: one console on stderr, so that stdout carries results alone."""

from collections.abc import Iterable

from rich.console import Console
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

console = Console(stderr=True, highlight=False)


def printable(text: str) -> str:
    """The text with escapes for what would break a line, steer the terminal, or cannot be encoded."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class RateColumn(ProgressColumn):
    """Items per second of a task, with the task's unit."""

    def __init__(self, unit: str):
        super().__init__(table_column=Column(no_wrap=True))
        self._unit = unit

    def render(self, task: Task) -> Text:
        """The rate as text; empty until it is known."""
        speed = task.finished_speed or task.speed
        return Text("" if not speed else f"{speed:,.1f} {self._unit}/s", style="progress.data.speed")


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
    )


def warn(sentences: Iterable[str]) -> None:
    """Prints what a user should not overlook, a line each."""
    for sentence in sentences:
        console.print(sentence, style="yellow", markup=False, soft_wrap=True)
