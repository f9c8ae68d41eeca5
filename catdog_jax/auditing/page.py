"""audit.html: what an audit found, with the photos side by side, for a person to decide."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.dataset import Dataset, Record
from catdog_jax.photos.prefetch import map_ahead
from catdog_jax.reporting import html

SIDE = 160  # pixels of a thumbnail's longer side
SHOWN = 100  # photos and groups of a section that are shown; audit.json has all
_AHEAD = 16

Thumbnails = Mapping[str, tuple[bytes, tuple[int, int]]]  # id -> a JPEG, and its width and height


class Card(NamedTuple):
    """A figure at the top of the page."""

    title: str
    value: str
    remark: str


class Shown(NamedTuple):
    """A photo on the page: its id and its label, and the lines of its caption, as text or as `html.bold`."""

    id: str
    label: str
    lines: Sequence[str]


class Group(NamedTuple):
    """Photos side by side: what is wrong with them, how they belong together, and the photos."""

    mark: str
    how: str
    photos: Sequence[Shown]


class Cell(NamedTuple):
    """A cell of a table: a value and a remark below it."""

    value: str
    remark: str = ""


class Section(NamedTuple):
    """A part of the page; what is empty is not there.

    Attributes:
      title: its heading.
      intro: a paragraph.
      groups: of photos.
      photos: one by one.
      more: how many are not shown.
      head: the titles of a table's columns.
      rows: a table's rows: the title and the cells.
    """

    title: str
    intro: str = ""
    groups: Sequence[Group] = ()
    photos: Sequence[Shown] = ()
    more: int = 0
    head: Sequence[str] = ()
    rows: Sequence[tuple[str, Sequence[Cell]]] = ()


def render(
    *,
    source: str,
    alarming: bool,
    notes: Sequence[str],
    cards: Sequence[Card],
    sections: Sequence[Section],
    thumbnails: Thumbnails,
) -> str:
    """The page as one HTML document."""
    verdict = "There is something to look at." if alarming else "Nothing was found that speaks against training."
    return html.render(
        "audit.html.j2",
        title=f"{source}: audit",
        name=source,
        verdict=verdict,
        notes=notes,
        cards=cards,
        sections=sections,
        thumbnails=thumbnails,
        missing=(SIDE, SIDE),
        most=SHOWN,
    )


def shown(sections: Sequence[Section]) -> set[str]:
    """The ids of the photos that sections show."""
    grouped = {photo.id for section in sections for group in section.groups for photo in group.photos[:SHOWN]}
    return grouped | {photo.id for section in sections for photo in section.photos}


def thumbnails(dataset: Dataset, ids: set[str]) -> Thumbnails:
    """Small pictures of photos, of their own shape; what cannot be read has none."""

    def thumbnail(record: Record) -> tuple[str, tuple[bytes, tuple[int, int]] | None]:
        try:
            image = decoding.preview(sources.read_patiently(record), SIDE)
        except CatdogError:
            return record.id, None
        return record.id, (html.jpeg(image), image.size)

    made = map_ahead(thumbnail, (record for record in dataset.records if record.id in ids), None, _AHEAD)
    return {name: picture for name, picture in made if picture is not None}
