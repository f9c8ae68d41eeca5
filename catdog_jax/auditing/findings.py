"""What a check of a data set is, and all that an audit finds."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from catdog_jax import __version__
from catdog_jax.auditing import page
from catdog_jax.auditing.evidence import Evidence
from catdog_jax.auditing.page import Card, Section
from catdog_jax.files import atomic, sealed
from catdog_jax.photos import exclude_list
from catdog_jax.photos.dataset import Dataset, LeftOut
from catdog_jax.reporting import html

FORMAT = 1


class Check(ABC):
    """One question to a data set, and, once `find` has made it, the answer.

    Attributes:
      name: what `Findings` calls it.
      last_on_page: whether its section comes after those of other checks.
      found: what was found, each an object.
    """

    name: ClassVar[str]
    last_on_page: ClassVar[bool] = False
    found: tuple[Any, ...]

    @classmethod
    @abstractmethod
    def find(cls, evidence: Evidence) -> "Check":
        """Looks at a data set."""

    @abstractmethod
    def rows(self) -> list[tuple[str, str, str]]:
        """The rows of the table on the terminal: what it is, how many photos, a remark."""

    @abstractmethod
    def section(self) -> Section:
        """The section of the page."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The fields of audit.json."""

    def alarms(self) -> bool:
        """Whether somebody should look at what was found."""
        return bool(self.found)

    def cards(self) -> list[Card]:
        """The figures at the top of the page."""
        return []

    def lines(self) -> list[str]:
        """The findings that the terminal lists, a line each."""
        return []

    def exclude(self) -> Iterator[str]:
        """The lines of the exclude file: what to leave out, and, commented out, what to look at first."""
        yield from ()

    def notes(self) -> list[str]:
        """What was not looked at, and why."""
        return []


@dataclass(frozen=True, repr=False)
class Findings:
    """All that an audit finds.

    Attributes:
      source: the data set.
      classes: its two classes.
      counts: photos by split and class.
      checks: the answer of each check.
      told: how the folders were understood.
      left_out: what the folders hold and is not taken.
      dataset: the photos, for the page; without it the page shows none.
    """

    source: str
    classes: tuple[str, str]
    counts: dict[str, dict[str, int]]
    checks: tuple[Check, ...]
    told: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    dataset: Dataset | None = field(default=None, compare=False)

    def __getitem__(self, name: str) -> Sequence[Any]:
        """What one check has found: that of "file faults", "copies", "label errors" or "drift"."""
        return {check.name: check.found for check in self.checks}[name]

    @property
    def lacking(self) -> list[tuple[str, str]]:
        """The splits and classes, in pairs, of which there is no photo."""
        return [
            (split, name) for split, by_class in self.counts.items() for name, count in by_class.items() if not count
        ]

    @property
    def notes(self) -> list[str]:
        """How the folders were understood; what is missing; what was not looked at, and why."""
        lacking = [
            f"No photos of {name!r} in the {split} split: `catdog extract` needs some." for split, name in self.lacking
        ]
        return [*self.told, *lacking, *(note for check in self.checks for note in check.notes())]

    def anything(self) -> bool:
        """Whether something was found that somebody should look at."""
        pictures = any(kind.pictures for kind in self.left_out)
        return any(check.alarms() for check in self.checks) or pictures or bool(self.lacking)

    def exclude(self) -> Iterator[str]:
        """The lines of the exclude file: what to leave out, and, commented out, what to look at first.

        Left out are photos that cannot be decoded, that are tiny or uniform, all but one of copies,
        and copies whose labels contradict each other. Other faults and probable label errors are
        for a person to decide: removing the # leaves them out.
        """
        yield f"# Photos of {self.source} to leave out. Lines with # say nothing: remove it to leave out that photo too."
        for check in self.checks:
            yield from check.exclude()

    def to_json(self) -> dict[str, Any]:
        """The contents of audit.json."""
        written: dict[str, Any] = {"format": FORMAT, "version": __version__, "source": self.source}
        written |= {"classes": self.classes, "counts": self.counts}
        for check in self.checks:
            written |= check.to_json()
        left_out = [asdict(kind) for kind in self.left_out]
        return written | {"notes": self.notes, "left_out": left_out}

    def report(self) -> str:
        """The page as one HTML document, with the photos that it shows."""
        first_to_last = sorted(self.checks, key=lambda check: check.last_on_page)
        sections = [*(check.section() for check in first_to_last), self._counts()]
        return page.render(
            source=self.source,
            alarming=self.anything(),
            notes=self.notes,
            cards=[card for check in self.checks for card in check.cards()],
            sections=sections,
            thumbnails=page.thumbnails(self.dataset, page.shown(sections)) if self.dataset else {},
        )

    def save(self, folder: Path) -> Path:
        """Writes audit.html and audit.json into a folder, and returns the path of the page.

        Raises:
          CatdogError: a file cannot be written.
        """
        path = Path(folder) / "audit.html"
        atomic.write_bytes(path, html.with_seal(self.report()))
        sealed.write_sealed_json(path.with_name("audit.json"), self.to_json())
        return path

    def save_exclude(self, path: Path) -> None:
        """Writes the exclude file, which `load_photos` and `catdog extract` take.

        Raises:
          CatdogError: it cannot be written.
        """
        exclude_list.write(Path(path), self.exclude())

    def __repr__(self) -> str:
        rows = [row for check in self.checks for row in check.rows()]
        lines = [f"  {' '.join(filter(None, (name, count)))}: {what}" for name, count, what in rows]
        return "\n".join([f"Findings of {self.source}", *(lines or ["  nothing that speaks against training"])])

    def _repr_html_(self) -> str:
        return html.framed(self.report())

    def _counts(self) -> Section:
        rows = [
            (split, [page.Cell(f"{by_class[name]:,}") for name in self.classes])
            for split, by_class in self.counts.items()
        ]
        return Section("The data set", head=("Split", *self.classes), rows=rows)
