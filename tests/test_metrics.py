"""Metrics against hand-computed values, scikit-learn and brute force; intervals against a plain bootstrap and the truth."""

import numpy as np
import pytest
import sklearn.metrics

from catdog_jax import metrics
from catdog_jax.errors import CatdogError, UsageError

NAMES = ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss", "brier", "ece")


def sample(seed: int, n: int, separation: float = 1.0, decimals: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both classes; probabilities are rounded, so that there are ties."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(n) % 3 == 0).astype(np.int8)
    scores = generator.normal(separation * (2 * labels.astype(float) - 1), 1.5)
    return labels, np.round(1 / (1 + np.exp(-scores)), decimals)


def brute_force_ece(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> float:
    """Guo et al. 2017, equations 2, 3 and 5, word for word."""
    total = 0.0
    for m in range(1, bins + 1):
        inside = []
        for label, probability in zip(labels, probabilities, strict=True):
            confidence = max(probability, 1 - probability)
            if (m - 1) / bins < confidence <= m / bins:
                inside.append((int(probability >= 0.5) == label, confidence))
        if inside:
            accuracy, confidence = np.mean(inside, axis=0)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


# ---------------------------------------------------------------------------------------------------- metrics


def test_metrics_of_a_small_example_by_hand():
    labels, probabilities = np.array([0, 0, 1, 1, 1]), np.array([0.1, 0.62, 0.38, 0.8, 0.9])
    # judged 0 1 0 1 1; of the 6 pairs only (0.38, 0.62) is out of order; the bins hold {0.9, 0.9}, {0.62, 0.62}, {0.8}
    expected = {
        "accuracy": 3 / 5,
        "precision": 2 / 3,
        "recall": 2 / 3,
        "f1": 2 / 3,
        "roc_auc": 5 / 6,
        "log_loss": -np.log([0.9, 0.38, 0.38, 0.8, 0.9]).mean(),
        "brier": (0.01 + 2 * 0.62**2 + 0.04 + 0.01) / 5,
        "ece": (2 * 0.1 + 2 * 0.62 + 0.2) / 5,
    }
    found = metrics.metrics(labels, probabilities)
    assert tuple(found) == NAMES
    assert found == pytest.approx(expected)


def test_a_probability_of_one_half_is_judged_positive():
    assert metrics.metrics(np.array([0, 1]), np.array([0.2, 0.5]))["accuracy"] == 1


def test_nothing_judged_positive_has_precision_zero_and_no_warning():
    found = metrics.metrics(np.array([0, 1]), np.array([0.1, 0.2]))
    assert (found["precision"], found["recall"], found["f1"]) == (0, 0, 0)


def test_log_loss_of_a_certain_mistake_is_finite():
    labels, probabilities = np.array([0, 1, 1]), np.array([1.0, 1.0, 0.9])
    found = metrics.metrics(labels, probabilities)["log_loss"]
    assert found == pytest.approx((-np.log(np.finfo(np.float64).eps) - np.log(0.9)) / 3)
    assert metrics.bootstrap(labels, probabilities, 50)["log_loss"][1] < np.inf


@pytest.mark.parametrize("bins", [1, 2, 10, 15])
@pytest.mark.parametrize("seed", [0, 1])
def test_calibration_error_is_that_of_the_paper(seed: int, bins: int):
    labels, probabilities = sample(seed, 200, decimals=3)
    expected = brute_force_ece(labels, probabilities, bins)
    assert metrics.expected_calibration_error(labels, probabilities, bins) == pytest.approx(expected)


def test_calibration_error_at_the_ends_of_the_bins():
    labels, probabilities = np.array([0, 1, 0, 1]), np.array([0.0, 1.0, 0.5, 0.5])
    assert (
        metrics.expected_calibration_error(labels, probabilities) == 0
    )  # sure and right; undecided and right half of the time
    assert metrics.expected_calibration_error(1 - labels, probabilities) == pytest.approx(0.5)


def test_calibration_bins_hold_every_photo_once():
    labels, probabilities = sample(0, 500)
    bins = metrics.calibration_bins(labels, probabilities)
    assert sum(one["count"] for one in bins) == 500
    assert all(one["low"] < one["confidence"] <= one["high"] + 1e-12 for one in bins if one["count"])
    assert sum(one["count"] * one["accuracy"] for one in bins if one["count"]) == pytest.approx(
        sklearn.metrics.accuracy_score(labels, probabilities >= 0.5, normalize=False)
    )


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([1, 1, 1], [0.1, 0.2, 0.3], "expected both classes, 0 and 1, found 1 in 3 rows"),
        ([], [], "expected both classes, 0 and 1, found none in 0 rows"),
        ([0, 2], [0.1, 0.2], "expected both classes, 0 and 1, found 0, 2 in 2 rows"),
        ([0, 1], [0.1], r"expected one for each of \(2,\) labels, found \(1,\)"),
        ([0, 1], [[0.1], [0.2]], r"expected one for each of \(2,\) labels, found \(2, 1\)"),
        ([0, 1], [0.1, 1.2], "expected numbers from 0 to 1"),
        ([0, 1], [0.1, np.nan], "expected numbers from 0 to 1, found others or NaN"),
    ],
)
@pytest.mark.parametrize("function", [metrics.metrics, metrics.bootstrap, metrics.expected_calibration_error])
def test_rows_that_cannot_be_judged(function, labels: list, probabilities: list, message: str):
    with pytest.raises(CatdogError, match=message):
        function(np.array(labels), np.array(probabilities))


# ---------------------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize("seed", range(3))
def test_metrics_of_counts_are_those_of_the_repeated_rows(seed: int):
    labels, probabilities = sample(seed, 60, decimals=1)
    probabilities[:2] = 0, 1  # clipped in the log loss
    counts = np.random.default_rng(seed).multinomial(60, np.full(60, 1 / 60), 8).astype(float)
    found = metrics.metrics_of_counts(counts, labels.astype(int), probabilities)
    for resample, count in enumerate(counts.astype(int)):
        expected = metrics.metrics(np.repeat(labels, count), np.repeat(probabilities, count))
        assert {name: found[name][resample] for name in NAMES} == pytest.approx(expected)


def test_metrics_of_counts_where_nothing_is_judged_positive():
    found = metrics.metrics_of_counts(np.ones((1, 2)), np.array([0, 1]), np.array([0.1, 0.2]))
    assert (found["precision"][0], found["f1"][0]) == (0, 0)


def test_intervals_are_those_of_a_plain_bootstrap():
    labels, probabilities = sample(3, 200)
    generator, plain = np.random.default_rng(9), {"recall": [], "roc_auc": []}
    for _ in range(1000):
        rows = generator.integers(0, 200, 200)
        positive, negative = probabilities[rows][labels[rows] == 1], probabilities[rows][labels[rows] == 0]
        plain["recall"].append((positive >= 0.5).mean())
        plain["roc_auc"].append((np.sign(positive[:, None] - negative[None, :]) / 2 + 0.5).mean())
    found = metrics.bootstrap(labels, probabilities, 4000, seed=1)
    for name, values in plain.items():
        low, high = np.percentile(values, (2.5, 97.5))
        assert found[name] == pytest.approx((low, high), abs=0.15 * (high - low))


def test_about_95_of_100_intervals_cover_the_truth():
    """On 200 draws of 200 rows from a population whose accuracy, Brier score and ROC AUC are known."""
    levels = np.linspace(0.05, 0.95, 10)  # a calibrated model that says each level equally often
    right, squared = np.maximum(levels, 1 - levels).mean(), (levels * (1 - levels)).mean()
    pairs = levels[:, None] * (1 - levels)[None, :]  # positive at one level, negative at the other
    order = np.sign(levels[:, None] - levels[None, :]) / 2 + 0.5
    truth = {"accuracy": right, "brier": squared, "roc_auc": (pairs * order).sum() / pairs.sum()}
    generator = np.random.default_rng(0)
    covered = dict.fromkeys(truth, 0)
    for draw in range(200):
        probabilities = generator.choice(levels, 200)
        labels = (generator.random(200) < probabilities).astype(int)
        intervals = metrics.bootstrap(labels, probabilities, 300, seed=draw)
        for name, value in truth.items():
            covered[name] += intervals[name][0] <= value <= intervals[name][1]
    assert all(180 <= count <= 199 for count in covered.values()), covered


def test_the_value_lies_in_its_interval_and_the_seed_decides():
    labels, probabilities = sample(4, 300)
    intervals = metrics.bootstrap(labels, probabilities, 500)
    values = metrics.metrics(labels, probabilities)
    for name in ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss", "brier"):
        assert intervals[name][0] < values[name] < intervals[name][1]
    assert metrics.bootstrap(labels, probabilities, 500) == intervals
    assert metrics.bootstrap(labels, probabilities, 500, seed=1) != intervals


def test_chunks_do_not_change_the_intervals(monkeypatch: pytest.MonkeyPatch):
    labels, probabilities = sample(5, 100)
    whole = metrics.bootstrap(labels, probabilities, 100)
    monkeypatch.setattr(metrics, "_CHUNK", 700)
    parts = metrics.bootstrap(labels, probabilities, 100)
    assert np.array(list(parts.values())) == pytest.approx(np.array(list(whole.values())))


@pytest.mark.parametrize("labels", [[0, 1], [0, 0, 0, 0, 0, 1], [1, 0, 1, 1]])
def test_resamples_of_one_class_are_drawn_again(labels: list[int]):
    probabilities = np.linspace(0.2, 0.9, len(labels))
    intervals = metrics.bootstrap(np.array(labels), probabilities, 400)
    assert np.isfinite(list(intervals.values())).all()
    assert 0 <= intervals["roc_auc"][0] <= intervals["roc_auc"][1] <= 1


def test_without_a_mistake_the_interval_is_a_point():
    found = metrics.bootstrap(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]), 100)
    assert found["accuracy"] == found["roc_auc"] == (1, 1)


def test_no_resamples_is_wrong_usage():
    with pytest.raises(UsageError, match=r"--bootstrap: expected at least 1 resample, found 0"):
        metrics.bootstrap(np.array([0, 1]), np.array([0.2, 0.8]), 0)
