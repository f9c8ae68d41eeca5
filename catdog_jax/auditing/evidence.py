"""What the checks of an audit look at: every photo, decoded once, and what else was computed from all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from catdog_jax.photos.dataset import Dataset

MIN_PHOTOS = 20  # of each side that heads tell apart; below it a fold holds too few to measure


@dataclass(frozen=True)
class Photo:
    """Which photo is meant: its id, its split and the class that it is labelled with."""

    id: str
    split: str
    label: str


@dataclass(frozen=True)
class Fault:
    """Something wrong with a photo's file: a kind of `file_faults.KINDS`, and what was found."""

    photo: Photo
    kind: str
    reason: str


@dataclass(frozen=True)
class Look:
    """What is known of a photo after it was decoded.

    Attributes:
      photo: which one it is.
      sha256: of its undecoded bytes; empty where they cannot be read.
      faults: what is wrong with it.
      size: width and height in pixels, upright; (0, 0) where there is no picture.
      pixels: the SHA-256 of size and pixels, undone of any encoding; empty where there is no
        picture.
      grey: uint8 [GREY, GREY], the whole photo squashed; None where there is no picture.
    """

    photo: Photo
    sha256: str
    faults: tuple[Fault, ...] = ()
    size: tuple[int, int] = (0, 0)
    pixels: bytes = b""
    grey: np.ndarray | None = None


@dataclass(frozen=True)
class Copies:
    """Photos that show the same picture, directly or by way of others in the group.

    Attributes:
      photos: the first is the one to keep, where the labels agree.
      rows: their places in the data set.
      exact: whether all have the same pixels.
      correlation: the lowest of grey levels among the pairs that were found.
      cosine: likewise, of features; None where no pair has any.
      mirrored: whether some are mirror images of others.
    """

    photos: tuple[Photo, ...]
    rows: tuple[int, ...]
    exact: bool
    correlation: float
    cosine: float | None
    mirrored: bool

    @property
    def across(self) -> bool:
        """Whether they lie in several splits."""
        return len({photo.split for photo in self.photos}) > 1

    @property
    def opposite(self) -> bool:
        """Whether they have several labels."""
        return len({photo.label for photo in self.photos}) > 1


@dataclass(frozen=True)
class Evidence:
    """All that checks may look at.

    Attributes:
      dataset: the photos that are not read yet.
      looks: every photo after it was decoded, in the order of the records.
      copies: of `duplicates.find`.
      features: averaged VGG16 features, float [512], by the place of a photo; None where no feature
        cache was given.
      seed: decides the folds.
    """

    dataset: Dataset
    looks: Sequence[Look]
    copies: Sequence[Copies]
    features: Mapping[int, np.ndarray] | None
    seed: int

    @property
    def enough(self) -> bool:
        """Whether so many photos of each class have features that heads can say something of their labels."""
        labels = [self.dataset.records[row].label for row in self.features or ()]
        return min(labels.count(0), labels.count(1)) >= MIN_PHOTOS
