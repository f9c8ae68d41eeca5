"""Labels that are probably wrong: those that heads which have not seen the photo contradict."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from catdog_jax.auditing.evidence import MIN_PHOTOS, Evidence, Photo
from catdog_jax.auditing.findings import Check
from catdog_jax.auditing.page import Card, Section, Shown
from catdog_jax.photos import exclude_list
from catdog_jax.reporting.html import bold

LOOKED_AT = 50  # labels that the page shows at least, the most suspicious ones
_WITHOUT = (
    "Labels and drift were not looked at: they need features. Run `catdog extract --out CACHE`, then `catdog audit "
    "--features CACHE`."
)


class Labels(NamedTuple):
    """What confident learning finds: for each row, and over all.

    Attributes:
      other: float64 [N], the probability of the class that a row is not labelled with.
      suspect: bool [N], whether the row is counted as one of the other class.
      thresholds: for each class, the mean probability that its own rows give it.
    """

    other: np.ndarray
    suspect: np.ndarray
    thresholds: tuple[float, float]


@dataclass(frozen=True)
class LabelError:
    """A label to look at: how probable the other class is, and whether confident learning counts the photo as of it."""

    photo: Photo
    other: str
    probability: float
    suspect: bool


@dataclass(frozen=True)
class LabelErrors(Check):
    """The labels to look at, the most suspicious first.

    Attributes:
      found: all suspects, and some more.
      checked: how many labels were checked; 0 without features.
      accuracy: the share of them that heads give which have not seen the photo.
      reasons: why labels were not looked at.
    """

    name = "label errors"

    found: tuple[LabelError, ...] = ()
    checked: int = 0
    accuracy: float | None = None
    reasons: tuple[str, ...] = ()

    @classmethod
    def find(cls, evidence: Evidence) -> "LabelErrors":
        """Checks the label of every photo that has features."""
        if evidence.features is None:
            return cls(reasons=(_WITHOUT,))
        rows, total = list(evidence.features), len(evidence.looks)
        lacking = f"{total - len(rows):,} of {total:,} photos have no features: their labels were not judged."
        reasons = (lacking,) if len(rows) < total else ()
        if not evidence.enough:
            few = f"Labels were not judged: that needs {MIN_PHOTOS} photos of each class with features."
            return cls(reasons=(*reasons, few))
        from catdog_jax.auditing import out_of_fold  # brings JAX

        given = np.array([evidence.dataset.records[row].label for row in rows])
        probabilities = out_of_fold.predict(evidence.features, given, evidence.copies, evidence.seed)
        labels = confident_learning(given, probabilities)
        accuracy = float((labels.other < 0.5).mean())
        return cls(_most_suspicious(evidence, rows, labels), len(rows), accuracy, reasons)

    @property
    def suspects(self) -> int:
        """How many labels confident learning counts as wrong."""
        return sum(label.suspect for label in self.found)

    def alarms(self) -> bool:
        """Only suspects do: the others are merely next in the order."""
        return self.suspects > 0

    def rows(self) -> list[tuple[str, str, str]]:
        """How many suspects there are."""
        remark = f"of {self.checked:,} checked; look at them on the page"
        return [("suspicious labels", f"{self.suspects:,}", remark)] if self.suspects else []

    def cards(self) -> list[Card]:
        """How many suspects there are."""
        count = f"{self.suspects:,}" if self.checked else "–"
        return [Card("Suspicious labels", count, f"of {self.checked:,} checked")]

    def section(self) -> Section:
        """The photos, each with the class that it probably is."""
        title = "Suspicious labels"
        if not self.checked:
            return Section(title, "Not looked at: see above.")
        if not self.found:
            return Section(title, "None: the heads agree with every label.")
        intro = (
            f"Each of {self.checked:,} photos was predicted by a head that has not seen it; {100 * (self.accuracy or 0):.2f} %"
            f" agree with their labels. Confident learning counts {self.suspects:,} labels as wrong (their class is in bold "
            "below); the others come next in its order. A head errs too: look before you act."
        )
        return Section(title, intro, photos=[_shown(label) for label in self.found])

    def exclude(self) -> Iterator[str]:
        """Commented out, because a head errs too."""
        for label in self.found:
            if label.suspect:
                photo = label.photo
                yield f"# labelled {photo.label}, probably {label.other} ({label.probability:.4f}): look at it"
                yield f"# {exclude_list.line(photo.id)}"

    def notes(self) -> list[str]:
        """Why labels were not looked at."""
        return list(self.reasons)

    def to_json(self) -> dict[str, Any]:
        """The labels, and what they were found by."""
        labels = [asdict(label) for label in self.found]
        return {"judged": self.checked, "accuracy": self.accuracy, "suspicions": labels}


def confident_learning(labels: np.ndarray, probabilities: np.ndarray) -> Labels:
    """Which labels are probably wrong.

    Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR
    70, 2021, for two classes: a row counts as one of class j when its probability of j is at least
    the mean probability of j among the rows labelled j (equation 2; of two such classes the
    likelier); it is suspect when j is not its label (the off-diagonal of the confident joint).
    Ranked by the probability of the other class, the normalised margin.

    The labels [N], 0 or 1, both of which occur, have probabilities [N] of class 1, by heads
    that have not seen the row.
    """
    of_class = np.stack([1 - probabilities, probabilities])
    given = labels.astype(np.int64)
    thresholds = [float(of_class[label][given == label].mean()) for label in (0, 1)]
    rows = np.arange(len(given))
    own, other = of_class[given, rows], of_class[1 - given, rows]
    limits = np.array(thresholds)
    suspect = (other >= limits[1 - given]) & ((own < limits[given]) | (other > own))
    return Labels(other, suspect, (thresholds[0], thresholds[1]))


def _most_suspicious(evidence: Evidence, rows: list[int], labels: Labels) -> tuple[LabelError, ...]:
    """All suspects, and the most improbable labels up to `LOOKED_AT`, in the order of how improbable they are."""
    order = sorted(range(len(rows)), key=lambda index: (not labels.suspect[index], -labels.other[index], rows[index]))
    classes, records = evidence.dataset.classes, evidence.dataset.records
    return tuple(
        LabelError(
            photo=evidence.looks[rows[index]].photo,
            other=classes[1 - records[rows[index]].label],
            probability=float(labels.other[index]),
            suspect=bool(labels.suspect[index]),
        )
        for place, index in enumerate(order)
        if labels.suspect[index] or (place < LOOKED_AT and labels.other[index] > 0.5)
    )


def _shown(label: LabelError) -> Shown:
    sure = f"{100 * label.probability:.2f} %" if label.probability < 0.9999 else "over 99.99 %"
    other = bold(label.other) if label.suspect else label.other
    lines = (f"labelled {label.photo.label}, {label.photo.split}", "predicted " + other + f" {sure}")
    return Shown(label.photo.id, label.photo.label, lines)
