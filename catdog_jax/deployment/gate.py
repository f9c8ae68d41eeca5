"""May a smaller file be published? It is measured beside the float32 file, on the same validation photos."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from catdog_jax.config import THRESHOLD
from catdog_jax.errors import CatdogError
from catdog_jax.reporting import intervals
from catdog_jax.runtime import side_by_side

MAX_DROP = 0.003  # of the accuracy, below fp32's, beyond which a file is refused


class Gate(NamedTuple):
    """A file beside the float32 file on the same photos.

    Attributes:
      n: photos that both have answered.
      accuracy, log_loss: of the file.
      fp32_accuracy, fp32_log_loss: of the float32 file.
      drop, drop_low, drop_high: how much lower the accuracy is, and its 95 % interval (paired;
        Bonett and Price).
      speed: photos a second of the file / of the float32 file, in turns in the same run.
      split: which photos these are: of validation, or of train where the head was trained on all.
    """

    n: int
    accuracy: float
    log_loss: float
    fp32_accuracy: float
    fp32_log_loss: float
    drop: float
    drop_low: float
    drop_high: float
    speed: float
    split: str = "validation"

    def said(self, source: str) -> str:
        """The figures in words; `source` is what the photos are called."""
        which = "validation photos" if self.split == "validation" else "training photos, having no others,"
        interval = f"{100 * self.drop_low:.2f} to {100 * self.drop_high:.2f}"
        return (
            f"accuracy {self.accuracy:.2%} against fp32's {self.fp32_accuracy:.2%} on {self.n:,} {which} of "
            f"{source} (a drop of {100 * self.drop:.2f} points, 95 % interval {interval}), "
            f"log loss {self.log_loss:.4f} against {self.fp32_log_loss:.4f}, {self.speed:.2f} times as fast"
        )


def measure(
    model: bytes, fp32: bytes, photos: Iterable[side_by_side.Seen], total: int, threshold: float = THRESHOLD
) -> Gate:
    """Measures a file beside the float32 one that it was made of, see `side_by_side.in_turns`; both decide by the threshold.

    In a file of which nothing is `precisions.saturating`, the figures are those of every CPU, but
    for the rounding of sums.

    Raises:
      CatdogError: there are no photos.
    """
    turns = side_by_side.in_turns(
        [side_by_side.opened(model), side_by_side.opened(fp32)], photos, total, "compare with fp32"
    )
    if not len(turns.labels):
        raise CatdogError(
            "expected validation photos that can be decoded, to judge the file on, found none. Check --data."
        )
    smaller, full = turns.probabilities
    return compare(smaller, full, turns.labels, turns.seconds[1] / turns.seconds[0], threshold)


def compare(
    smaller: np.ndarray, fp32: np.ndarray, labels: np.ndarray, speed: float, threshold: float = THRESHOLD
) -> Gate:
    """The figures of `Gate` from the probabilities of the second class of both files, each [N]."""
    right, fp32_right = ((side >= np.float32(threshold)) == (labels == 1) for side in (smaller, fp32))
    n = len(labels)
    worse, better = int((fp32_right & ~right).sum()), int((right & ~fp32_right).sum())
    drop = (worse - better) / n
    low, high = intervals.of_paired_drop(worse, better, n)
    losses = [
        float(-np.log(np.maximum(np.where(labels == 1, side, 1 - side), np.finfo(np.float64).eps)).mean())
        for side in (smaller.astype(np.float64), fp32.astype(np.float64))
    ]
    return Gate(n, float(right.mean()), losses[0], float(fp32_right.mean()), losses[1], drop, low, high, speed)
