"""What an audit finds, as plain data: the contents of audit.json, and what of it should be left out of a training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from catdog_jax.auditing.duplicates import Group
from catdog_jax.auditing.file_faults import LOST, Look
from catdog_jax.photos import exclude_list
from catdog_jax.photos.dataset import LeftOut
from catdog_jax.photos.sources import SPLITS, Dataset

USELESS = (*LOST, "tiny", "uniform")  # faults for which a photo should be left out; the others are for eyes to judge
DRIFTED = 0.55  # ROC AUC that the lower end of a drift's interval stays below where splits are of one source
# Of copies the one that is tested on stays, so that figures stay comparable
_KEPT_FIRST = ("test", "validation", "train")


@dataclass(frozen=True)
class Photo:
    """Which photo is meant: its id, its split and the class that it is labelled with."""

    id: str
    split: str
    label: str


@dataclass(frozen=True)
class Faulty:
    """A photo whose file has something wrong: one of `file_faults.KINDS`, and the reason."""

    photo: Photo
    kind: str
    reason: str


@dataclass(frozen=True)
class Copies:
    """Photos that show the same picture; see `duplicates.Group`.

    Attributes:
      photos: the first is the one to keep, where the labels agree.
      exact: whether all have the same pixels.
      correlation: the lowest of their grey levels.
      cosine: the lowest of their features, or None.
      mirrored: whether some are mirror images.
      across: whether they lie in several splits.
      opposite: whether they have several labels.
    """

    photos: tuple[Photo, ...]
    exact: bool
    correlation: float
    cosine: float | None
    mirrored: bool
    across: bool
    opposite: bool


@dataclass(frozen=True)
class Suspicion:
    """A label to look at: how probable the other class is, and whether confident learning counts the photo as of it."""

    photo: Photo
    other: str
    probability: float
    suspect: bool


@dataclass(frozen=True)
class Drift:
    """How well a head tells the photos of a split from training photos: its ROC AUC and the 95 % interval."""

    split: str
    auc: float
    low: float
    high: float


@dataclass(frozen=True)
class Findings:
    """All that an audit finds.

    Attributes:
      source: the data set.
      classes: its two classes.
      counts: photos by split and class.
      faulty: what is wrong with files.
      copies: photos that occur more than once; opposite labels first, then those across splits.
      judged: how many labels were judged; 0 without features.
      accuracy: the share of them that heads give which have not seen the photo.
      suspicions: the labels to look at, the most suspicious first: all suspects, and some more.
      drift: by split; without features none.
      notes: how the folders were understood; what was not looked at, and why.
      left_out: what the folders hold and is not taken.
    """

    source: str
    classes: tuple[str, str]
    counts: dict[str, dict[str, int]]
    faulty: tuple[Faulty, ...]
    copies: tuple[Copies, ...]
    judged: int = 0
    accuracy: float | None = None
    suspicions: tuple[Suspicion, ...] = ()
    drift: tuple[Drift, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def suspects(self) -> int:
        """How many labels confident learning holds for wrong."""
        return sum(one.suspect for one in self.suspicions)

    @property
    def drifted(self) -> list[Drift]:
        """The splits that are certainly not like the training photos."""
        return [one for one in self.drift if one.low > DRIFTED]

    @property
    def lacking(self) -> list[tuple[str, str]]:
        """The splits and classes, in pairs, of which there is no photo."""
        return [
            (split, name) for split, by_class in self.counts.items() for name, count in by_class.items() if not count
        ]

    def anything(self) -> bool:
        """Whether something was found that somebody should look at."""
        pictures = any(one.pictures for one in self.left_out)
        return bool(self.faulty or self.copies or self.suspects or self.drifted or pictures or self.lacking)


def photos(dataset: Dataset) -> list[Photo]:
    """The photos of a data set as findings name them, in the order of the records."""
    return [Photo(record.id, record.split, dataset.classes[record.label]) for record in dataset.records]


def faulty(of: Sequence[Photo], looks: Sequence[Look]) -> tuple[Faulty, ...]:
    """What is wrong with the files."""
    return tuple(
        Faulty(photo, one.kind, one.reason) for photo, look in zip(of, looks, strict=True) for one in look.faults
    )


def copies(of: Sequence[Photo], looks: Sequence[Look], groups: Sequence[Group]) -> tuple[Copies, ...]:
    """Groups of copies: in each the photo to keep first, opposite labels before all others, then those across splits."""

    def described(group: Group) -> Copies:
        def preference(row: int) -> tuple[int, int, str]:
            width, height = looks[row].size
            return _KEPT_FIRST.index(of[row].split), -width * height, of[row].id

        members = tuple(of[row] for row in sorted(group.rows, key=preference))
        across, opposite = (len({getattr(one, name) for one in members}) > 1 for name in ("split", "label"))
        return Copies(members, group.exact, group.correlation, group.cosine, group.mirrored, across, opposite)

    found = map(described, groups)
    return tuple(sorted(found, key=lambda one: (not one.opposite, not one.across, not one.exact, one.photos[0].id)))


def counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Photos by split and class."""
    pairs = [(record.split, record.label) for record in dataset.records]
    return {
        split: {name: pairs.count((split, label)) for label, name in enumerate(dataset.classes)} for split in SPLITS
    }


def exclude_lines(found: Findings) -> Iterator[str]:
    """The lines of the exclude file: what to leave out, and, commented out, what to look at first.

    Left out are photos that cannot be decoded, that are tiny or uniform, all but one of copies, and
    copies whose labels contradict each other. Other faults and suspicious labels are for eyes to
    judge: removing the # leaves them out.
    """
    yield f"# Photos of {found.source} to leave out. Lines with # say nothing: remove it to leave out that photo too."
    for one in found.faulty:
        yield f"# {one.kind}: {one.reason}"
        yield ("" if one.kind in USELESS else "# ") + exclude_list.line(one.photo.id)
    for group in found.copies:
        first = "copies with opposite labels" if group.opposite else f"the same picture as {group.photos[0].id!r}"
        for photo in group.photos if group.opposite else group.photos[1:]:
            yield f"# {first}"
            yield exclude_list.line(photo.id)
    for suspicion in found.suspicions:
        if suspicion.suspect:
            photo = suspicion.photo
            yield f"# labelled {photo.label}, probably {suspicion.other} ({suspicion.probability:.4f}): look at it"
            yield f"# {exclude_list.line(photo.id)}"
