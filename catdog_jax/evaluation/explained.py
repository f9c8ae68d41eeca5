"""What the report's figures say, for a reader who meets them for the first time: each with the numbers of these photos.

Pure functions of the contents of metrics.json. The report folds them away.
"""

import math
from collections.abc import Mapping, Sequence

from catdog_jax.config import THRESHOLD
from catdog_jax.reporting.metrics import METRICS, PERCENT, Measured, baseline, photos_of
from catdog_jax.reporting.plots import History, Json


def figures(metrics: Json, measured: Mapping[str, Measured]) -> list[str]:
    """The table of metrics, a paragraph each."""
    (first, second), counts = metrics["classes"], metrics["confusion"]
    (_, false_positive), (false_negative, true_positive) = counts
    totals, right = [sum(row) for row in counts], [counts[0][0], true_positive]
    n, mistakes = sum(totals), false_positive + false_negative
    accuracy, guess = measured["accuracy"], baseline(counts, metrics["classes"])
    told = [
        f"Accuracy: {n - mistakes:,} of {n:,} {photos_of(metrics['split'])} are judged right, {_percent(accuracy.value)}. They "
        "are a sample of all the photos that the model may meet. Of those it may get any share right from "
        f"{METRICS['accuracy'].shown_interval(accuracy).replace(' – ', ' to ')}: an interval made in this way holds the true "
        "share 95 times in 100, and more photos make it narrower.",
        f"Baseline: whoever answers “{guess.name}” each time, without looking, is right for {_percent(guess.accuracy)} of "
        f"these photos. That makes {n - max(totals):,} mistakes; the model makes {mistakes:,}.",
    ]
    if "balanced_accuracy" in measured:
        told.append(
            f"Balanced accuracy counts both classes alike, however many photos each has: {_of(right[0], totals[0])} photos of "
            f"{first} are right and {_of(right[1], totals[1])} of {second}; the mean of both shares is "
            f"{_percent(measured['balanced_accuracy'].value)}. Who gives the same answer each time has 50{PERCENT}."
        )
    told.append(
        f"Precision, recall and F1 look at {second} alone: {_of(true_positive, false_positive + true_positive)} photos "
        f"that are called {second} are of {second} (precision), and {_of(true_positive, totals[1])} photos of {second} are "
        "found (recall). F1 is high where both are."
    )
    if "roc_auc" in measured:
        told.append(
            f"ROC AUC: of one photo of {first} and one of {second}, the one of {second} has the higher probability of "
            f"{second} in {_percent(measured['roc_auc'].value)} of all such pairs. A coin would get 50{PERCENT} of them. "
            "No threshold plays a part in it."
        )
    share = totals[1] / n
    told.append(
        "Log loss and Brier score judge the probabilities: to be sure and wrong costs much, to be in doubt costs little. "
        f"Who knows nothing but how many photos each class has, and says {_percent(share)} {second} of every photo, has a "
        f"log loss of {-sum(p * math.log(p) for p in (share, 1 - share) if p):.4f} and a Brier score of "
        f"{share * (1 - share):.4f}."
    )
    return told


def confusion(metrics: Json) -> list[str]:
    """The confusion matrix."""
    (first, second), ((_, to_second), (to_first, _)) = metrics["classes"], metrics["confusion"]
    told = [
        f"On the diagonal from the upper left are the photos that are judged right. Beside it are the mistakes: {to_second:,} "
        f"photos of {first} are taken for {second} (upper right), {to_first:,} of {second} for {first} (lower left)."
    ]
    threshold = metrics.get("threshold", THRESHOLD)
    if threshold != THRESHOLD:
        more, less = (second, first) if threshold < THRESHOLD else (first, second)
        told.append(
            f"A photo is called {second} from a probability of {threshold:.3g} on, not from {THRESHOLD}: more photos of "
            f"{more} are found, and more of {less} are taken for {more}."
        )
    return told


def roc(metrics: Json) -> list[str]:
    """The ROC curve."""
    (first, second), counts = metrics["classes"], metrics["confusion"]
    return [
        f"The model gives each photo a probability of {second}; the threshold makes a decision of it. The dot is the "
        f"threshold in use, {metrics.get('threshold', THRESHOLD):.3g}: {_of(counts[0][1], sum(counts[0]))} photos of "
        f"{first} are called {second} wrongly (how far right it is), and {_of(counts[1][1], sum(counts[1]))} of {second} "
        "rightly (how high it is). A lower threshold goes to the right and up along the curve. A curve through the upper "
        "left corner is perfect; guessing gives the dashed line."
    ]


def calibration(metrics: Json, measured: Mapping[str, Measured]) -> list[str]:
    """The calibration curve, by its fullest bin."""
    fullest = max(metrics["calibration"], key=lambda one: one["count"])
    low, high = max(fullest["low"], THRESHOLD), fullest["high"]
    told = (
        f"Of photos that the model is 90{PERCENT} sure of, 9 in 10 should be right. Most photos here, "
        f"{fullest['count']:,}, have a confidence from {100 * low:.0f} to {100 * high:.0f}{PERCENT}: "
        f"{_percent(fullest['confidence'])} on average, and {_percent(fullest['accuracy'])} of them are right. Points "
        "below the dashed line are too sure, points above it not sure enough."
    )
    if "ece" in measured:
        error = measured["ece"]
        told += f" The mean distance from the line, over all photos, is the calibration error: {error.value:.4f}."
        if error.by_chance is not None:
            told += f" Chance alone makes it up to {error.by_chance:.4f} with so many photos."
    return [told]


def training(history: History | None) -> list[str]:
    """The curves of the training; nothing where there are none."""
    losses: Sequence[float] = (history or {}).get("validation_loss", [])
    if history is None or len(losses) < 2:
        return []
    best = min(range(len(losses)), key=losses.__getitem__)
    return [
        "From epoch to epoch the head fits the training photos better. The validation photos, which it does not learn "
        f"from, tell whether that holds for others too: their log loss was {losses[0]:.4f} after the first epoch and "
        f"lowest, {losses[best]:.4f}, after epoch {history['epoch'][best]:g} of {len(losses)}. From where it rises while "
        "that of the training photos falls, the head learns its photos by heart."
    ]


def _percent(share: float) -> str:
    return METRICS["accuracy"].shown(share)


def _of(count: int, total: int) -> str:
    return f"{count:,} of {total:,}"
