"""Photos that occur more than once: exactly, by their decoded pixels, and nearly, re-encoded, resized, retouched or mirrored.

Photos whose `hashes` are close are compared by their small grey pictures, then by their VGG16
features where there are any.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from catdog_jax.auditing.evidence import Copies, Evidence, Look
from catdog_jax.auditing.findings import Check
from catdog_jax.auditing.page import SHOWN, Card, Group, Section, Shown
from catdog_jax.photos import exclude_list, hashes
from catdog_jax.photos.near_copies import Units, correlations

# Of grey levels; copies reach 0.966 at a quarter of the size, other pairs of one hash at most 0.88
MIN_CORRELATION = 0.95
MIN_COSINE = 0.9  # of averaged VGG16 features; copies reach 0.97, random pairs 0.49 in the median
_CHUNK = 4096  # pairs that are computed at once
# Of copies the one that is tested on stays, so that figures stay comparable
_KEPT_FIRST = ("test", "validation", "train")


@dataclass(frozen=True)
class _Pair:
    first: int
    second: int
    correlation: float
    cosine: float | None
    mirrored: bool


def find(looks: Sequence[Look], features: Mapping[int, np.ndarray] | None = None) -> list[Copies]:
    """The groups of copies in a data set, in the order of their first photos.

    Nearly uniform photos are compared exactly only: two empty pictures are alike without being
    copies.

    The features are averaged ones of VGG16, by the place of a photo, of those that have any;
    they confirm near-duplicates.
    """
    pairs = [_Pair(*rows, 1.0, None, False) for rows in _same_pixels(looks)]
    later = {pair.second for pair in pairs}  # their first stands for them
    uniform = {row for row, seen in enumerate(looks) if any(fault.kind == "uniform" for fault in seen.faults)}
    rows = np.array(
        [row for row, seen in enumerate(looks) if seen.grey is not None and row not in later | uniform], np.int64
    )
    if len(rows) > 1:
        grey = np.stack([seen.grey for row in rows if (seen := looks[row]).grey is not None])
        pairs += _confirmed(rows, hashes.candidates(hashes.hashes(grey)), grey, features or {})
    return _grouped(pairs, looks)


def _same_pixels(looks: Sequence[Look]) -> Iterator[tuple[int, int]]:
    first: dict[bytes, int] = {}
    for row, seen in enumerate(looks):
        if seen.pixels and first.setdefault(seen.pixels, row) != row:
            yield first[seen.pixels], row


def _confirmed(
    rows: np.ndarray, pairs: np.ndarray, grey: np.ndarray, features: Mapping[int, np.ndarray]
) -> Iterator[_Pair]:
    """The pairs whose grey pictures, and features where both have them, are alike too."""
    for start in range(0, len(pairs), _CHUNK):
        part = pairs[start : start + _CHUNK]
        one, other = grey[part[:, 0]], grey[part[:, 1]]
        straight, mirrored = correlations(one, other), correlations(one, other[:, :, ::-1])
        for index in np.flatnonzero(np.maximum(straight, mirrored) >= MIN_CORRELATION):
            first, second = rows[part[index]].tolist()
            cosine = _cosine(features[first], features[second]) if {first, second} <= features.keys() else None
            if cosine is None or cosine >= MIN_COSINE:
                best = float(max(straight[index], mirrored[index]))
                yield _Pair(first, second, best, cosine, bool(mirrored[index] > straight[index]))


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    return min(float(a @ b / np.sqrt((a @ a) * (b @ b))), 1.0)


def _grouped(pairs: Sequence[_Pair], looks: Sequence[Look]) -> list[Copies]:
    """Joins pairs that share a photo."""
    units = Units[int]()
    for pair in pairs:
        units.join(pair.first, pair.second)
    members: dict[int, list[int]] = {}
    for row in sorted({row for pair in pairs for row in (pair.first, pair.second)}):
        members.setdefault(units.top(row), []).append(row)
    links: dict[int, list[_Pair]] = {}
    for pair in pairs:
        links.setdefault(units.top(pair.first), []).append(pair)
    return [_copies(rows, links[first], looks) for first, rows in sorted(members.items())]


def _copies(rows: Sequence[int], links: Sequence[_Pair], looks: Sequence[Look]) -> Copies:
    """A group, the photo to keep first: one that is tested on, and of these the largest."""

    def preference(row: int) -> tuple[int, int, str]:
        width, height = looks[row].size
        return _KEPT_FIRST.index(looks[row].photo.split), -width * height, looks[row].photo.id

    ordered = tuple(sorted(rows, key=preference))
    cosines = [pair.cosine for pair in links if pair.cosine is not None]
    return Copies(
        photos=tuple(looks[row].photo for row in ordered),
        rows=ordered,
        exact=len({looks[row].pixels for row in rows}) == 1,
        correlation=min(pair.correlation for pair in links),
        cosine=min(cosines, default=None),
        mirrored=any(pair.mirrored for pair in links),
    )


@dataclass(frozen=True)
class Duplicates(Check):
    """Photos that occur more than once; opposite labels first, then those across splits."""

    name = "copies"

    found: tuple[Copies, ...]

    @classmethod
    def find(cls, evidence: Evidence) -> "Duplicates":
        """Puts the groups into the order in which they are to be looked at."""

        def order(group: Copies) -> tuple[bool, bool, bool, str]:
            return not group.opposite, not group.across, not group.exact, group.photos[0].id

        return cls(tuple(sorted(evidence.copies, key=order)))

    def rows(self) -> list[tuple[str, str, str]]:
        """A row a kind of copies."""
        kinds = {
            "exact copies": [group for group in self.found if group.exact],
            "near copies": [group for group in self.found if not group.exact],
            "across splits": [group for group in self.found if group.across],
            "opposite labels": [group for group in self.found if group.opposite],
        }
        return [
            (
                kind,
                f"{sum(len(group.photos) for group in groups):,}",
                f"in {len(groups):,} group{'s' * (len(groups) > 1)}",
            )
            for kind, groups in kinds.items()
            if groups
        ]

    def cards(self) -> list[Card]:
        """How many groups there are, and how many of them contradict themselves."""
        across = sum(group.across for group in self.found)
        opposite = sum(group.opposite for group in self.found)
        return [
            Card("Groups of copies", f"{len(self.found):,}", f"{across:,} across splits"),
            Card("Opposite labels", f"{opposite:,}", "groups of copies"),
        ]

    def section(self) -> Section:
        """The groups, each with its photos side by side."""
        if not self.found:
            return Section("Copies", "None: no picture occurs twice.")
        intro = (
            "Opposite labels first, then copies that lie in several splits. The first of a group is the one to keep; "
            "where labels contradict each other there is none."
        )
        groups = [_group(group) for group in self.found[:SHOWN]]
        return Section("Copies", intro, groups=groups, more=len(self.found) - len(groups))

    def lines(self) -> list[str]:
        """A line a group that spoils a training or its test."""
        return [
            f"{'opposite labels' if group.opposite else 'across splits'}: "
            f"{', '.join(repr(photo.id) for photo in group.photos)}"
            for group in self.found
            if group.opposite or group.across
        ]

    def exclude(self) -> Iterator[str]:
        """All but the first of a group are left out; where labels contradict each other, all."""
        for group in self.found:
            reason = "copies with opposite labels" if group.opposite else f"the same picture as {group.photos[0].id!r}"
            for photo in group.photos if group.opposite else group.photos[1:]:
                yield f"# {reason}"
                yield exclude_list.line(photo.id)

    def to_json(self) -> dict[str, Any]:
        """All groups."""
        groups = [asdict(group) | {"across": group.across, "opposite": group.opposite} for group in self.found]
        return {"copies": [{key: value for key, value in group.items() if key != "rows"} for group in groups]}


def _group(group: Copies) -> Group:
    marks = (("opposite labels", group.opposite), ("across splits", group.across))
    kind = "the same pixels" if group.exact else f"grey levels correlate by {group.correlation:.3f}"
    cosine = "" if group.cosine is None or group.exact else f", features have a cosine of {group.cosine:.3f}"
    return Group(
        mark=", ".join(name for name, is_so in marks if is_so),
        how=kind + cosine + (", mirrored" if group.mirrored else ""),
        photos=[Shown(photo.id, photo.label, (f"{photo.label}, {photo.split}",)) for photo in group.photos],
    )
