"""What the figures of a head do not tell, in sentences: few photos, lopsided ones, no better than a guess, too good.

They go to the terminal, metrics.json, the report and the model file alike, after those of the
training, which `heads.calibration` and the recipe of the head have.
"""

from collections.abc import Sequence

import numpy as np

from catdog_jax.reporting import intervals
from catdog_jax.reporting.metrics import baseline, photos_of

WIDE = 0.05  # an interval wider than this cannot tell a mistake in twenty from none, and is put into words
LOPSIDED = 3.0  # photos of the larger class for each of the other, from which on accuracy misleads
PERFECT = 200  # photos without a mistake, from which on it is suspicious
_ADVICE = "`--class-weight balanced` or `--decide-by balanced_accuracy` in the training count both alike."


def of_counts(
    counts: Sequence[Sequence[int]], classes: Sequence[str], split: str, *, balanced: bool = False
) -> list[str]:
    """What the decisions on some photos leave open, a sentence each; none where there is nothing to be said.

    Args:
      counts: of `Predictions.confusion`.
      classes: the two names.
      split: which photos these are.
      balanced: whether the head was made for lopsided photos, so that no advice is due.
    """
    sentences = few(counts, classes, split)
    if told := lopsided([sum(row) for row in counts], classes, split):
        sentences.append(told if balanced else f"{told} {_ADVICE}")
    return [*sentences, *filter(None, (no_better(counts, classes), perfect(counts, split)))]


def few(counts: Sequence[Sequence[int]], classes: Sequence[str], split: str) -> list[str]:
    """What so few photos cannot tell; nothing where they tell enough.

    A class is named where its interval is twice as wide as that of all photos: where it has much
    fewer than half of them.
    """
    n, mistakes = sum(map(sum, counts)), counts[0][1] + counts[1][0]
    width = np.ptp(intervals.of_share(mistakes, n))
    sentences = [_in_words(photos_of(split), n, mistakes)] if width > WIDE else []
    for label, name in enumerate(classes):
        n, mistakes = sum(counts[label]), counts[label][1 - label]
        if np.ptp(intervals.of_share(mistakes, n)) > 2 * max(width, WIDE):
            sentences.append(_in_words(f"{photos_of(split)} of {name}", n, mistakes))
    return sentences


def lopsided(totals: Sequence[int], classes: Sequence[str], split: str = "") -> str:
    """That one class has `LOPSIDED` times the photos of the other, or more; empty where it has not.

    The totals are the numbers of photos of the two classes, of a split or of all.
    """
    smaller = int(totals[1] < totals[0])
    few, many = totals[smaller], totals[1 - smaller]
    if not few or many < LOPSIDED * few:
        return ""
    ratio = f"{many / few:,.1f}".removesuffix(".0") if many < 10 * few else f"{many / few:,.0f}"
    where = (
        f"{ratio} {photos_of(split) if split else 'photos'} of {classes[1 - smaller]} for each of {classes[smaller]}"
    )
    return f"{where}: look at balanced accuracy, because accuracy hardly counts {classes[smaller]}."


def no_better(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """That the accuracy may be that of the baseline: the lower end of its interval is not above; empty where it is."""
    n, mistakes = sum(map(sum, counts)), counts[0][1] + counts[1][0]
    (low, high), guess = intervals.of_share(n - mistakes, n), baseline(counts, classes)
    if low > guess.accuracy:
        return ""
    shown = f"{_percent((n - mistakes) / n)} ({100 * low:.1f} – {_percent(high)})"
    return (
        f"The accuracy, {shown}, may be no better than the baseline: always answering “{guess.name}” is right for "
        f"{_percent(guess.accuracy)} of these photos."
    )


def perfect(counts: Sequence[Sequence[int]], split: str) -> str:
    """That so many photos without a mistake are suspicious; empty where there are mistakes, or the head knows the photos."""
    n = sum(map(sum, counts))
    if n < PERFECT or counts[0][1] or counts[1][0] or split == "train":
        return ""
    return (
        f"No mistake among {n:,} {photos_of(split)} is suspiciously good: are some of them copies of photos that the head "
        "was trained on? `catdog audit` finds copies."
    )


def chosen_here(split: str) -> str:
    """That a threshold was chosen on the photos that it is judged on; empty of other photos."""
    if split not in ("validation", "folds"):
        return ""
    return f"The threshold was chosen on these {photos_of(split)}, which flatters the figures that depend on it."


def _in_words(what: str, n: int, mistakes: int) -> str:
    low, high = intervals.of_share(mistakes, n)
    among = f"{mistakes} mistake{'s' * (mistakes > 1)}" if mistakes else "no mistake"
    may = f"may be anything from {100 * low:.0f} to" if mistakes else "may still be up to"
    return f"{n} {what}: with {among} among them, the share of mistakes {may} {100 * high:.0f} %."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
