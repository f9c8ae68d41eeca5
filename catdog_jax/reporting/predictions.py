"""The two columns that every metric is computed from, checked once."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from catdog_jax.config import THRESHOLD
from catdog_jax.errors import CatdogError


class Predictions(NamedTuple):
    """What a classifier says of rows whose class is known; class 1 is the positive one.

    Attributes:
      labels: int64 [N], 0 or 1, both of which occur.
      probabilities: float64 [N], of class 1.
      threshold: the probability from which on a row is predicted to be of class 1.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    threshold: float = THRESHOLD

    @classmethod
    def checked(cls, labels: ArrayLike, probabilities: ArrayLike, threshold: float = THRESHOLD) -> "Predictions":
        """The same rows, once it is certain that they can be measured.

        Raises:
          CatdogError: the rows do not match, a probability is outside [0, 1], or there is only one
            class.
        """
        labels, probabilities = np.asarray(labels).astype(np.int64), np.asarray(probabilities, np.float64)
        if labels.ndim != 1 or labels.shape != probabilities.shape:
            raise CatdogError(
                f"probabilities: expected one for each of {labels.shape} labels, found {probabilities.shape}. "
                f"Predict again."
            )
        if not ((probabilities >= 0) & (probabilities <= 1)).all():  # NaN fails too
            raise CatdogError("probabilities: expected numbers from 0 to 1, found others or NaN. Train the head again.")
        if set(np.unique(labels)) != {0, 1}:
            found = ", ".join(map(str, np.unique(labels))) or "none"
            raise CatdogError(
                f"labels: expected both classes, 0 and 1, found {found} in {len(labels)} rows. Evaluate photos of both."
            )
        return cls(labels, probabilities, threshold)

    @property
    def positive(self) -> np.ndarray:
        """Whether a row is predicted to be of class 1, bool [N]: at a probability of the threshold or more."""
        return self.probabilities >= self.threshold

    @property
    def confusion(self) -> list[list[int]]:
        """How many rows of each class (rows) are predicted to be of each class (columns)."""
        return np.bincount(2 * self.labels + self.positive, minlength=4).reshape(2, 2).tolist()

    @property
    def mistakes(self) -> int:
        """How many rows are predicted to be of the other class."""
        return int((self.positive != self.labels).sum())
