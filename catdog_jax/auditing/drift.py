"""Splits that come from different sources: those whose photos heads can tell from training photos."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from catdog_jax.auditing.evidence import MIN_PHOTOS, Evidence
from catdog_jax.auditing.findings import Check
from catdog_jax.auditing.page import Cell, Section
from catdog_jax.photos.dataset import SPLITS
from catdog_jax.reporting import intervals
from catdog_jax.reporting.predictions import Predictions

DRIFTED = 0.55  # ROC AUC that the lower end of a drift's interval stays below where splits are of one source


@dataclass(frozen=True)
class Drift:
    """How well a head tells the photos of a split from training photos: its ROC AUC and the 95 % interval."""

    split: str
    auc: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether the split is certainly not like the training photos."""
        return self.low > DRIFTED


@dataclass(frozen=True)
class Drifts(Check):
    """The drift of each split that has enough features."""

    name = "drift"

    found: tuple[Drift, ...] = ()

    @classmethod
    def find(cls, evidence: Evidence) -> "Drifts":
        """Compares validation and test photos with training photos; a split with too few photos is left out."""
        if not evidence.enough:
            return cls()
        measured = (_measured(evidence, split) for split in SPLITS[1:])
        return cls(tuple(drift for drift in measured if drift))

    def alarms(self) -> bool:
        """Whether a split drifts."""
        return any(drift.certain for drift in self.found)

    def rows(self) -> list[tuple[str, str, str]]:
        """A row a split."""
        return [
            (
                f"drift of {drift.split}",
                "",
                f"{'another source than the training photos' if drift.certain else 'none that counts'}: "
                f"ROC AUC {drift.auc:.3f} ({drift.low:.3f} – {drift.high:.3f})",
            )
            for drift in self.found
        ]

    def section(self) -> Section:
        """A table of the splits."""
        title = "Drift between splits"
        if not self.found:
            return Section(title, "Not looked at: it needs features of enough photos.")
        intro = (
            "How well a head tells the photos of a split from training photos, as ROC AUC with its 95 % interval. 0.5 "
            f"is not at all; an interval above {DRIFTED:g} means that the splits come from different sources."
        )
        rows = [
            (drift.split, [Cell(f"{drift.auc:.3f}", f"{drift.low:.3f} – {drift.high:.3f}")]) for drift in self.found
        ]
        return Section(title, intro, head=("Split", "ROC AUC"), rows=rows)

    def to_json(self) -> dict[str, Any]:
        """All splits."""
        return {"drift": [asdict(drift) for drift in self.found]}


def _measured(evidence: Evidence, split: str) -> Drift | None:
    from catdog_jax.auditing import out_of_fold  # brings JAX
    from catdog_jax.reporting.metrics import METRICS

    records = evidence.dataset.records
    features = {
        row: columns for row, columns in (evidence.features or {}).items() if records[row].split in (SPLITS[0], split)
    }
    is_other = np.array([records[row].split == split for row in features], np.int64)
    if min(np.bincount(is_other, minlength=2)) < MIN_PHOTOS:
        return None
    probabilities = out_of_fold.predict(features, is_other, evidence.copies, evidence.seed)
    predictions = Predictions.checked(is_other, probabilities)
    return Drift(
        split,
        METRICS["roc_auc"].compute(predictions),
        *intervals.of_roc_auc(predictions.labels, predictions.probabilities),
    )
