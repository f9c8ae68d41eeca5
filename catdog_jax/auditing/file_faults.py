"""Every photo of a data set looked at once: what is wrong with the file, and what it can be compared by.

A photo leaves little behind (a hash of its pixels and a small grey picture, about 1.2 KB), so that
100,000 fit anywhere.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from catdog_jax.auditing.evidence import Evidence, Fault, Look, Photo
from catdog_jax.auditing.findings import Check
from catdog_jax.auditing.page import SHOWN, Card, Section, Shown
from catdog_jax.console import progress_bar
from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding, exclude_list, sources
from catdog_jax.photos.dataset import Dataset, Record
from catdog_jax.photos.hashes import GREY
from catdog_jax.photos.near_copies import MIN_SPREAD
from catdog_jax.photos.prefetch import map_ahead
from catdog_jax.reporting.html import bold

MAX_ASPECT = 3.0  # longer by shorter side; squashed to a square, what is on such a photo is hardly recognised
MIN_SIDE = 50  # pixels of the shorter side; enlarged more than fourfold, there is nothing left to see
_AHEAD = 64  # photos that wait, looked at, for their turn


class Decoded(NamedTuple):
    """A photo as the checks of files see it: its name, the format of its bytes, its size, and uint8 [GREY, GREY]."""

    name: str
    format: str
    size: tuple[int, int]
    grey: np.ndarray


class FileCheck(NamedTuple):
    """A kind of fault.

    Attributes:
      kind: its name.
      meaning: in a few words.
      useless: whether such a photo should be left out; otherwise a person decides.
      find: says what is wrong with a decoded photo, nothing where it is sound; None where decoding
        itself finds it.
    """

    kind: str
    meaning: str
    useless: bool
    find: Callable[[Decoded], str | None] | None = None


def _extension(photo: Decoded) -> str | None:
    suffix = PurePosixPath(photo.name).suffix
    expected = decoding.SUFFIXES.get(suffix.lower(), photo.format)
    return None if expected == photo.format else f"named {suffix}, found {photo.format}"


def _aspect(photo: Decoded) -> str | None:
    return _pixels(photo) if max(photo.size) > MAX_ASPECT * min(photo.size) else None


def _tiny(photo: Decoded) -> str | None:
    return _pixels(photo) if min(photo.size) < MIN_SIDE else None


def _uniform(photo: Decoded) -> str | None:
    spread = float(photo.grey.std())
    return f"grey levels {photo.grey.mean():.0f} ± {spread:.1f}" if spread < MIN_SPREAD else None


def _pixels(photo: Decoded) -> str:
    return f"{photo.size[0]} x {photo.size[1]} pixels"


FILE_CHECKS = (
    FileCheck("unreadable", "cannot be read or decoded", useless=True),
    FileCheck("truncated", "ends before its picture does", useless=True),
    FileCheck("extension", "is not what its name says", useless=False, find=_extension),
    FileCheck("aspect", f"longer side over {MAX_ASPECT:g} times the shorter", useless=False, find=_aspect),
    FileCheck("tiny", f"shorter side under {MIN_SIDE} pixels", useless=True, find=_tiny),
    FileCheck("uniform", "nearly nothing but one grey", useless=True, find=_uniform),
)
KINDS = {check.kind: check for check in FILE_CHECKS}


def survey(dataset: Dataset, workers: int | None = None) -> list[Look]:
    """Looks at every photo, in threads; the looks are in the order of the records."""
    looks = []
    # In one piece, or they would hold the heap's holes open
    kept = np.zeros((len(dataset.records), GREY, GREY), np.uint8)
    with progress_bar("photos") as progress:
        ahead = map_ahead(lambda record: look(record, dataset.classes), dataset.records, workers, _AHEAD)
        for place, seen in enumerate(progress.track(ahead, total=len(kept), description="audit")):
            if seen.grey is not None:
                kept[place] = seen.grey
                seen = dataclasses.replace(seen, grey=kept[place])
            looks.append(seen)
    return looks


def look(record: Record, classes: tuple[str, str]) -> Look:
    """Reads and decodes one photo; whatever is wrong with it becomes a fault."""
    photo, digest = Photo(record.id, record.split, classes[record.label]), ""
    try:
        encoded = sources.read_patiently(record)
        digest = hashlib.sha256(encoded).hexdigest()
        picture = decoding.load(encoded)
    except CatdogError as error:
        return Look(photo, digest, (Fault(photo, _lost(str(error)), str(error)),))
    size = picture.image.size
    grey = np.asarray(picture.image.convert("L").resize((GREY, GREY), Image.Resampling.BOX))
    pixels = hashlib.sha256(b"%d %d " % size)
    pixels.update(picture.image.tobytes())
    decoded = Decoded(record.id, picture.format, size, grey)
    reasons = ((check.kind, check.find(decoded)) for check in FILE_CHECKS if check.find)
    faults = tuple(Fault(photo, kind, reason) for kind, reason in reasons if reason)
    return Look(photo, digest, faults, size, pixels.digest(), grey)


def _lost(reason: str) -> str:
    """Whether a photo is unreadable or truncated, by what the decoder says after the gate's own words."""
    return "truncated" if "truncated" in reason.lower().rpartition("damaged or truncated: ")[2] else "unreadable"


@dataclass(frozen=True)
class FileFaults(Check):
    """What is wrong with single files, among so many photos."""

    name = "file faults"
    last_on_page = True

    found: tuple[Fault, ...]
    photos: int

    @classmethod
    def find(cls, evidence: Evidence) -> "FileFaults":
        """Gathers the faults of all photos."""
        return cls(tuple(fault for seen in evidence.looks for fault in seen.faults), len(evidence.looks))

    def rows(self) -> list[tuple[str, str, str]]:
        """A row a kind."""
        kinds = [fault.kind for fault in self.found]
        return [(kind, f"{kinds.count(kind):,}", check.meaning) for kind, check in KINDS.items() if kind in kinds]

    def cards(self) -> list[Card]:
        """How many files have a fault."""
        return [
            Card("Faulty files", f"{len({fault.photo.id for fault in self.found}):,}", f"of {self.photos:,} photos")
        ]

    def section(self) -> Section:
        """The photos with their faults."""
        intro = "" if self.found else "None: every file was decoded, and nothing about the pictures is odd."
        photos = [
            Shown(
                fault.photo.id,
                fault.photo.label,
                (bold(fault.kind) + f": {KINDS[fault.kind].meaning}", fault.reason),
            )
            for fault in self.found[:SHOWN]
        ]
        return Section("Faulty files", intro, photos=photos, more=len(self.found) - len(photos))

    def lines(self) -> list[str]:
        """A line a fault."""
        return [f"{fault.photo.id!r}: {fault.kind}: {fault.reason}" for fault in self.found]

    def exclude(self) -> Iterator[str]:
        """What has nothing to show is left out."""
        for fault in self.found:
            yield f"# {fault.kind}: {fault.reason}"
            yield ("" if KINDS[fault.kind].useless else "# ") + exclude_list.line(fault.photo.id)

    def to_json(self) -> dict[str, Any]:
        """All faults."""
        return {"faulty": [dataclasses.asdict(fault) for fault in self.found]}
