"""Metrics against hand-computed values, scikit-learn and brute force; which interval each has."""

import numpy as np
import pytest
import sklearn.metrics

from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.reporting import calibration_error, intervals, metrics

NAMES = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "roc_auc", "log_loss", "brier", "ece")


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


# ----------------------------------------------------------------------------------------------------
# metrics


def values(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    measured = metrics.measure(labels, probabilities, resamples=1)
    return {name: metric.value for name, metric in measured.items()}


def test_metrics_of_a_small_example_by_hand():
    labels, probabilities = np.array([0, 0, 1, 1, 1]), np.array([0.1, 0.62, 0.38, 0.8, 0.9])
    # predicted 0 1 0 1 1; of the 6 pairs only (0.38, 0.62) is out of order; the bins hold {0.9, 0.9},
    # {0.62, 0.62}, {0.8}
    expected = {
        "accuracy": 3 / 5,
        "balanced_accuracy": (1 / 2 + 2 / 3) / 2,
        "precision": 2 / 3,
        "recall": 2 / 3,
        "f1": 2 / 3,
        "roc_auc": 5 / 6,
        "log_loss": -np.log([0.9, 0.38, 0.38, 0.8, 0.9]).mean(),
        "brier": (0.01 + 2 * 0.62**2 + 0.04 + 0.01) / 5,
        "ece": (2 * 0.1 + 2 * 0.62 + 0.2) / 5,
    }
    found = values(labels, probabilities)
    assert tuple(found) == NAMES
    assert found == pytest.approx(expected)


def test_a_probability_of_one_half_is_predicted_positive():
    assert values(np.array([0, 1]), np.array([0.2, 0.5]))["accuracy"] == 1


def test_nothing_predicted_positive_has_precision_zero_and_no_warning():
    found = values(np.array([0, 1]), np.array([0.1, 0.2]))
    assert (found["precision"], found["recall"], found["f1"]) == (0, 0, 0)


def test_log_loss_of_a_certain_mistake_is_finite():
    labels, probabilities = np.array([0, 1, 1]), np.array([1.0, 1.0, 0.9])
    found = values(labels, probabilities)["log_loss"]
    assert found == pytest.approx((-np.log(np.finfo(np.float64).eps) - np.log(0.9)) / 3)


@pytest.mark.parametrize("bins", [1, 2, 10, 15])
@pytest.mark.parametrize("seed", [0, 1])
def test_calibration_error_is_that_of_the_paper(seed: int, bins: int):
    labels, probabilities = sample(seed, 200, decimals=3)
    expected = brute_force_ece(labels, probabilities, bins)
    assert calibration_error.expected_calibration_error(labels, probabilities, bins) == pytest.approx(expected)


def test_calibration_error_at_the_ends_of_the_bins():
    labels, probabilities = np.array([0, 1, 0, 1]), np.array([0.0, 1.0, 0.5, 0.5])
    assert (
        calibration_error.expected_calibration_error(labels, probabilities) == 0
    )  # sure and right; undecided and right half of the time
    assert calibration_error.expected_calibration_error(1 - labels, probabilities) == pytest.approx(0.5)


def test_calibration_bins_hold_every_photo_once():
    labels, probabilities = sample(0, 500)
    bins = calibration_error.calibration_bins(labels, probabilities)
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
@pytest.mark.parametrize(
    "function",
    [
        lambda labels, probabilities: metrics.measure(labels, probabilities, resamples=10),
        calibration_error.expected_calibration_error,
    ],
)
def test_rows_that_cannot_be_measured(function, labels: list, probabilities: list, message: str):
    with pytest.raises(CatdogError, match=message):
        function(np.array(labels), np.array(probabilities))


# ----------------------------------------------------------------------------------------------------
# intervals


def figures(labels: np.ndarray, probabilities: np.ndarray, resamples: int = 50) -> dict[str, metrics.Measured]:
    return metrics.measure(labels, probabilities, resamples=resamples)


def test_thirteen_photos_without_a_mistake_are_not_certain():
    labels = np.arange(13) % 2
    found = figures(labels, np.where(labels, 0.99, 0.01))
    assert (found["accuracy"].value, found["accuracy"].high) == (1, 1)
    assert found["accuracy"].low == pytest.approx(0.7719, abs=5e-5)
    for name in ("balanced_accuracy", "precision", "recall", "f1", "roc_auc"):
        assert found[name].value == found[name].high == 1
        assert found[name].low < 0.8
    assert found["brier"].high > 0.2  # 3 in 13 may be mistakes
    assert found["log_loss"].low is found["log_loss"].high is None


@pytest.mark.parametrize("seed", range(3))
def test_every_value_lies_in_its_interval_and_names_its_method(seed: int):
    labels, probabilities = sample(seed, 300)
    found = figures(labels, probabilities)
    for name, one in found.items():
        assert one.method in intervals.METHODS
        if name != "ece":
            assert one.low < one.value < one.high


def test_nothing_predicted_positive_leaves_the_precision_open():
    found = figures(np.array([0, 1]), np.array([0.1, 0.2]))["precision"]
    assert (found.value, found.low, found.high) == (0, 0, 1)


def test_the_log_loss_has_an_interval_from_ten_mistakes_on():
    labels = np.arange(100) % 2
    for mistakes in (metrics.MIN_MISTAKES - 1, metrics.MIN_MISTAKES):
        right = np.arange(100) >= mistakes
        found = figures(labels, np.where(right == (labels == 1), 0.9, 0.1))["log_loss"]
        assert (found.low is None) == (mistakes < metrics.MIN_MISTAKES)


def test_a_calibrated_model_stays_below_the_error_of_chance_95_times_in_100():
    generator, below = np.random.default_rng(0), 0
    for _ in range(200):
        probabilities = generator.beta(0.3, 0.3, 150)
        error = calibration_error.expected_calibration_error(
            (generator.random(150) < probabilities).astype(int), probabilities
        )
        below += error <= calibration_error.calibration_error_by_chance(probabilities, 200)
    assert 180 <= below <= 199
    overconfident = np.where(np.arange(150) % 2, 0.999, 0.001)
    wrong = (np.arange(150) % 2) ^ (np.arange(150) % 10 == 0)
    assert calibration_error.expected_calibration_error(
        wrong, overconfident
    ) > 5 * calibration_error.calibration_error_by_chance(overconfident)


def test_the_seed_decides_what_chance_gives_and_chunks_do_not(monkeypatch: pytest.MonkeyPatch):
    probabilities = sample(5, 100)[1]
    whole = calibration_error.calibration_error_by_chance(probabilities, 100)
    assert calibration_error.calibration_error_by_chance(probabilities, 100, seed=1) != whole
    monkeypatch.setattr(calibration_error, "_CHUNK", 700)
    assert calibration_error.calibration_error_by_chance(probabilities, 100) == pytest.approx(whole)


def test_no_resamples_is_wrong_usage():
    with pytest.raises(UsageError, match=r"--bootstrap: expected 1 or more, found 0"):
        figures(np.array([0, 1]), np.array([0.2, 0.8]), 0)


def test_a_measured_metric_is_written_and_read_back():
    labels, probabilities = sample(2, 40)
    for name, measured in figures(labels, probabilities).items():
        written = measured.to_json()
        assert ("by_chance" in written) == (name == "ece")
        assert metrics.Measured.from_json(written) == measured
    older = {"value": 0.5, "low": 0.25, "high": 0.75}
    assert metrics.Measured.from_json(older) == metrics.Measured(0.5, 0.25, 0.75)


def test_values_are_printed_as_shares_or_numbers():
    f1, brier, roc_auc, log_loss, ece = (
        metrics.METRICS[name] for name in ("f1", "brier", "roc_auc", "log_loss", "ece")
    )
    interval = metrics.Measured(0.5, 0.25, 0.751)
    assert f1.shown(0.98765) == "98.77\u202f%"
    assert brier.shown(0.98765) == "0.9877"
    assert f1.shown_interval(interval) == "25.00 – 75.10\u202f%"
    assert roc_auc.shown_interval(interval) == "0.2500 – 0.7510"
    assert log_loss.shown_interval(metrics.Measured(0.5, None, None)) == "few mistakes"
    assert ece.shown_interval(metrics.Measured(0.5, None, None, by_chance=0.0123)) == "chance ≤ 0.0123"


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.83])
def test_the_threshold_decides_and_judges_no_probability(threshold: float):
    labels, probabilities = sample(4, 300)
    found = {name: one.value for name, one in metrics.measure(labels, probabilities, threshold=threshold).items()}
    positive = probabilities >= threshold
    assert found["accuracy"] == sklearn.metrics.accuracy_score(labels, positive)
    assert found["balanced_accuracy"] == sklearn.metrics.balanced_accuracy_score(labels, positive)
    assert found["precision"] == sklearn.metrics.precision_score(labels, positive)
    assert found["recall"] == sklearn.metrics.recall_score(labels, positive)
    assert found["f1"] == sklearn.metrics.f1_score(labels, positive)
    usual = metrics.measure(labels, probabilities)
    for name in ("roc_auc", "log_loss", "brier", "ece"):
        assert found[name] == usual[name].value


def test_the_baseline_is_the_larger_class():
    assert metrics.baseline([[3, 0], [0, 1]], ("cats", "dogs")) == ("cats", 0.75)
    assert metrics.baseline([[0, 1], [4, 5]], ("cats", "dogs")) == ("dogs", 0.9)
    assert metrics.baseline([[2, 0], [0, 2]], ("cats", "dogs")).to_json() == {"class": "cats", "accuracy": 0.5}
    assert str(metrics.baseline([[0, 1], [4, 5]], ("cats", "dogs"))) == "always “dogs”: 90.00\u202f%"


def test_metrics_of_one_class_name_it():
    titles = [metric.titled(("cats", "dogs")) for metric in metrics.METRICS.values()]
    assert titles[:5] == ["Accuracy", "Balanced accuracy", "Precision of dogs", "Recall of dogs", "F1 of dogs"]
    assert (
        metrics.METRICS["roc_auc"].explained(("{second}", "%s"))
        == "how often a photo of %s ranks above one of {second}"
    )


def test_a_further_metric_is_one_entry(monkeypatch: pytest.MonkeyPatch):
    error = metrics.Metric(
        name="error", title="Error", meaning="", compute=lambda rows: rows.mistakes / len(rows.labels), method="wilson"
    )
    monkeypatch.setitem(metrics.METRICS, "error", error)
    found = figures(*sample(3, 50))
    assert found["error"].value == pytest.approx(1 - found["accuracy"].value)
    assert found["error"].low is found["error"].high is None
