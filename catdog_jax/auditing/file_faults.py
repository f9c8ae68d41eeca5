"""Every photo of a data set looked at once: what is wrong with the file, and what it can be compared by.

A photo leaves little behind (a hash of its pixels and a small grey picture, about 1.2 KB), so that
100,000 fit anywhere.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from catdog_jax.console import progress_bar
from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.prefetch import map_ahead
from catdog_jax.photos.sources import Dataset, Record

GREY = 32  # width and height of the small grey picture
MAX_ASPECT = 3.0  # longer by shorter side; squashed to a square, what is on such a photo is hardly recognised
MIN_SIDE = 50  # pixels of the shorter side; enlarged more than fourfold, there is nothing left to see
MIN_SPREAD = 6.0  # standard deviation of the grey levels (0 to 255) in the small picture
KINDS = {
    "unreadable": "cannot be read or decoded",
    "truncated": "ends before its picture does",
    "extension": "is not what its name says",
    "aspect": f"longer side over {MAX_ASPECT:g} times the shorter",
    "tiny": f"shorter side under {MIN_SIDE} pixels",
    "uniform": "nearly nothing but one grey",
}
LOST = ("unreadable", "truncated")  # the faults that leave no picture
_AHEAD = 64  # photos that wait, looked at, for their turn


@dataclass(frozen=True)
class Fault:
    """Something wrong with a photo's file: one of `KINDS`, and what was found."""

    kind: str
    reason: str


@dataclass(frozen=True)
class Look:
    """What is known of a photo after it was decoded.

    Attributes:
      sha256: of its undecoded bytes; empty where they cannot be read.
      faults: what is wrong with it.
      size: width and height in pixels, upright; (0, 0) where there is no picture.
      pixels: the SHA-256 of size and pixels, undone of any encoding; empty where there is no
        picture.
      grey: uint8 [GREY, GREY], the whole photo squashed; None where there is no picture.
    """

    sha256: str
    faults: tuple[Fault, ...] = ()
    size: tuple[int, int] = (0, 0)
    pixels: bytes = b""
    grey: np.ndarray | None = None


def survey(dataset: Dataset, workers: int | None = None) -> list[Look]:
    """Looks at every photo, in threads.

    Returns:
      As many as there are records, in their order.
    """
    found = []
    # In one piece, or they would hold the heap's holes open
    kept = np.zeros((len(dataset.records), GREY, GREY), np.uint8)
    with progress_bar("photos") as progress:
        looks = map_ahead(look, dataset.records, workers, _AHEAD)
        for place, one in enumerate(progress.track(looks, total=len(kept), description="audit")):
            if one.grey is not None:
                kept[place] = one.grey
                one = dataclasses.replace(one, grey=kept[place])
            found.append(one)
    return found


def look(record: Record) -> Look:
    """Reads and decodes one photo; whatever is wrong with it becomes a fault."""
    digest = ""
    try:
        encoded = sources.read_patiently(record)
        digest = hashlib.sha256(encoded).hexdigest()
        photo = decoding.load(encoded)
    except CatdogError as error:
        return Look(digest, (Fault(_lost(str(error)), str(error)),))
    size = photo.image.size
    grey = np.asarray(photo.image.convert("L").resize((GREY, GREY), Image.Resampling.BOX))
    pixels = hashlib.sha256(b"%d %d " % size)
    pixels.update(photo.image.tobytes())
    return Look(digest, tuple(_faults(record.id, photo.format, size, grey)), size, pixels.digest(), grey)


def _lost(reason: str) -> str:
    """Which of `LOST` it is, by what the decoder says after the gate's own words."""
    return "truncated" if "truncated" in reason.lower().rpartition("damaged or truncated: ")[2] else "unreadable"


def _faults(name: str, found: str, size: tuple[int, int], grey: np.ndarray) -> Iterator[Fault]:
    suffix = PurePosixPath(name).suffix
    expected = decoding.SUFFIXES.get(suffix.lower(), found)
    if expected != found:
        yield Fault("extension", f"named {suffix}, found {found}")
    short, long = sorted(size)
    shape = f"{size[0]} x {size[1]} pixels"
    if long > MAX_ASPECT * short:
        yield Fault("aspect", shape)
    if short < MIN_SIDE:
        yield Fault("tiny", shape)
    if (spread := float(grey.std())) < MIN_SPREAD:
        yield Fault("uniform", f"grey levels {grey.mean():.0f} ± {spread:.1f}")
