"""95 % intervals that do not collapse: without a mistake among n photos a figure is not certain.

All are closed forms. Resampling the photos cannot know of a mistake that is not among them, so no
bootstrap is used: on 13 photos without a mistake it gives 100 – 100 %.
tests/reporting/test_intervals.py holds what each of them covers.
"""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

Ends = tuple[float, float]

Z = NormalDist().inv_cdf(0.975)
METHODS = {
    "wilson": "Wilson’s interval of a share.",
    "wilson-mover": "from Wilson’s intervals of the two classes’ shares (MOVER; Newcombe).",
    "wilson-jaccard": "Wilson’s interval of J = TP / (TP + FP + FN), of which it is 2J / (1 + J).",
    "wilson-effective": "Wilson’s interval for as many photos as the variance stands for (the larger of DeLong’s and of Hanley "
    "and McNeil’s).",
    "wilson-mean": "Wilson’s interval as of a share, than which no mean of numbers from 0 to 1 varies more.",
    "log-normal": "normal interval of the logarithm; none below 10 mistakes, because they decide it.",
    "by-chance": "no interval holds; beside it, what a perfectly calibrated model stays below 95 times in 100 on these photos.",
}
"""How each interval is made, by the name that metrics.json gives it."""


def wilson(share: ArrayLike, count: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the interval of shares of `count` (Wilson, 1927); 0 and 1 where the count is 0.

    It covers 95 % on average over the true shares, not for each: where the count times the true
    share of mistakes is 0.18, the one mistake that is there 16 times in 100 makes it lie above. So
    it errs towards too many mistakes, never too few.

    The shares are from 0 to 1, of any shape; the count is of the same shape, or one for all,
    and need not be whole.
    """
    p, n = np.asarray(share, np.float64), np.asarray(count, np.float64)
    centre = (n * p + Z**2 / 2) / (n + Z**2)
    half = Z * np.sqrt(n * p * (1 - p) + Z**2 / 4) / (n + Z**2)
    return np.minimum(np.maximum(centre - half, 0), p * (n > 0)), np.maximum(np.minimum(centre + half, 1), p)


def of_share(count: int, total: int) -> Ends:
    """`wilson` of so many of a total."""
    return _ends(wilson(count / max(total, 1), total))


def of_mean(mean: float, count: int) -> Ends:
    """`wilson` of the mean of numbers from 0 to 1: its variance is at most that of a share, so the interval is wide enough."""
    return _ends(wilson(mean, count))


def of_mean_of_shares(first: tuple[int, int], second: tuple[int, int]) -> Ends:
    """The mean of two independent shares, each (so many, of a total), by MOVER (Newcombe, 1998; Zou and Donner, 2008).

    Each end lies as far from the value as the two ends of Wilson's intervals do together, as the
    legs of a right triangle. It does not collapse where both shares are 1, since those do not.
    """
    one, other = (count / max(total, 1) for count, total in (first, second))
    (low, high), (other_low, other_high) = of_share(*first), of_share(*second)
    mean = (one + other) / 2
    below, above = math.hypot(one - low, other - other_low), math.hypot(high - one, other_high - other)
    return max(mean - below / 2, 0.0), min(mean + above / 2, 1.0)


def of_f1(true_positives: int, mistakes: int) -> Ends:
    """F1 = 2J / (1 + J) rises with J = TP / (TP + FP + FN), a share of the photos that are positive or predicted so."""
    low, high = of_share(true_positives, true_positives + mistakes)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def of_roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> Ends:
    """`wilson` of the area for the number of photos whose share would have the area's variance.

    The variance is DeLong's (1988), which knows gross mistakes among photos that are well apart,
    but not below Hanley and McNeil's (1982), which is not 0 where all are in order. It is at most
    that of a share of the smaller class's photos.

    The labels [N] are 0 or 1, both of which occur; the probabilities [N] are of class 1.
    """
    positive, negative = probabilities[labels == 1], probabilities[labels == 0]
    m, n = len(positive), len(negative)
    above, below = _share_below(positive, negative), 1 - _share_below(negative, positive)
    area, others = float(above.mean()), (m + n) / 2 - 1
    effective = m * n / (1 + others * ((1 - area) / (2 - area) + area / (1 + area)))
    if min(m, n) > 1 and (delong := above.var(ddof=1) / m + below.var(ddof=1) / n) > 0:
        effective = min(effective, area * (1 - area) / delong)
    return _ends(wilson(area, max(effective, min(m, n))))


def of_log_loss(losses: np.ndarray) -> Ends:
    """The mean of positive numbers, normal in its logarithm: skewed as the mean of rare large losses is (delta method)."""
    mean = float(losses.mean())
    factor = float(np.exp(Z * losses.std(ddof=1) / np.sqrt(len(losses)) / mean))
    return mean / factor, mean * factor


def of_paired_drop(worse: int, better: int, total: int) -> Ends:
    """How much lower one share is than another of the same photos (Bonett & Price, 2012: one photo more of each kind).

    `worse` counts the photos that only the other one has, `better` those that only this one has.
    """
    lost, won = (worse + 1) / (total + 2), (better + 1) / (total + 2)
    half = Z * np.sqrt((lost + won - (lost - won) ** 2) / (total + 2))
    return lost - won - half, lost - won + half


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share of the others that each value is above, a tie counting half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (2 * len(others))


def _ends(ends: tuple[np.ndarray, np.ndarray]) -> Ends:
    return float(ends[0]), float(ends[1])
