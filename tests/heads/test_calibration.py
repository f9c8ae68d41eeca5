"""Temperature scaling against a grid, the threshold against all others, and the level to abstain at against its definition."""

import numpy as np
import pytest
import sklearn.metrics

from catdog_jax.errors import UsageError
from catdog_jax.heads import calibration, head


def overconfident(n: int = 4000, factor: float = 2.5) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `factor` times too large for their labels."""
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 3, n)
    return honest * factor, (rng.uniform(size=n) < 1 / (1 + np.exp(-honest))).astype(np.int8)


@pytest.mark.parametrize("factor", [0.6, 1.0, 2.5])
def test_the_temperature_is_the_best_of_a_fine_grid(factor):
    logits, labels = overconfident(factor=factor)
    found = calibration.calibrate(logits, labels).temperature
    grid = np.arange(0.3, 4, 0.002)
    losses = [np.logaddexp(0, np.where(labels, -1, 1) * logits / t).sum() + (np.log(t) / 0.2) ** 2 / 2 for t in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], abs=0.003)
    assert found == pytest.approx(factor, rel=0.1)


def test_the_more_photos_the_more_they_decide():
    logits, labels = overconfident()
    found = [calibration.calibrate(logits[:n], labels[:n]).temperature for n in (2, 20, 200, 4000)]
    assert found[0] == pytest.approx(1, abs=0.1)
    assert sorted(found) == found
    assert found[-1] == pytest.approx(2.5, rel=0.1)


@pytest.mark.parametrize("n", [2, 20, 100, 500])
def test_perfect_photos_do_not_run_away(n: int):
    perfect = np.where(np.arange(n) % 2, 3.0, -3.0)
    assert 0.5 < calibration.calibrate(perfect, perfect > 0).temperature < 1


@pytest.mark.parametrize("factor", [0.8, 1.0, 2.5])
def test_a_temperature_of_few_photos_hardly_ever_costs(factor: float):
    """Over draws of validation photos the log loss of all is on average at most 1 % worse than without a temperature."""
    logits, labels = overconfident(factor=factor)
    signed, rng = np.where(labels, logits, -logits), np.random.default_rng(0)
    for n in (10, 50, 200):
        changes = []
        for _ in range(40):
            chosen = rng.choice(len(logits), n, replace=False)
            temperature = calibration.calibrate(logits[chosen], labels[chosen]).temperature
            changes.append(np.logaddexp(0, -signed / temperature).mean() - np.logaddexp(0, -signed).mean())
        assert np.mean(changes) < 0.01 * np.logaddexp(0, -signed).mean()


def test_few_photos_tell_no_confidence_to_abstain_below():
    logits, labels = overconfident()
    enough = calibration.MIN_PHOTOS
    assert enough == 100
    assert calibration.calibrate(logits[:enough], labels[:enough]).abstain_below > 0.5
    found = calibration.calibrate(logits[: enough - 1], labels[: enough - 1])
    assert (found.abstain_below, found.calibration_photos) == (None, 99)
    assert calibration.warnings(found._asdict()) == [
        "99 validation photos calibrated the head: too few for a confidence to abstain below, which needs 100; the temperature "
        "is held near 1."
    ]


@pytest.mark.parametrize("recipe", [{}, {"abstain_below": 0.9}, {"abstain_below": 0.9, "calibration_photos": 300}])
def test_nothing_is_said_of_heads_that_have_it_or_were_trained_before(recipe: dict):
    assert calibration.warnings(recipe) == []


def test_one_photo_in_a_hundred_is_abstained_from():
    logits, labels = overconfident()
    found = calibration.calibrate(logits, labels)
    p = 1 / (1 + np.exp(-logits / found.temperature))
    judged = calibration.abstention(labels, p, found.abstain_below)
    assert judged["coverage"] == pytest.approx(0.99, abs=0.0005)
    sure = np.argsort(np.abs(logits))[-round(judged["coverage"] * len(p)) :]
    assert judged["accuracy"] == pytest.approx(((p >= 0.5) == labels)[sure].mean())
    assert judged["accuracy_low"] < judged["accuracy"] < judged["accuracy_high"]
    assert judged["coverage_low"] < judged["coverage"] < judged["coverage_high"]
    none = calibration.abstention(labels, p, 1.1)
    assert (none["coverage"], none["accuracy"], none["accuracy_low"], none["accuracy_high"]) == (0, 0, 0, 1)


def test_the_folded_temperature_divides_the_logits():
    rng = np.random.default_rng(1)
    params = {
        "dense_0": {"kernel": rng.standard_normal((5, 4)).astype(np.float32), "bias": np.ones(4, np.float32)},
        head.OUTPUT: {"kernel": rng.standard_normal((4, 1)).astype(np.float32), "bias": np.ones(1, np.float32)},
    }
    x = rng.standard_normal((20, 5)).astype(np.float32)
    folded = calibration.fold_temperature(params, 1.7)
    np.testing.assert_allclose(head.logits(folded, x), np.asarray(head.logits(params, x)) / 1.7, rtol=1e-5)
    assert folded["dense_0"] is params["dense_0"]


# ----------------------------------------------------------------------------------------------------
# the threshold

COSTS = (1.0, 7.0)
SCORES = {
    "accuracy": sklearn.metrics.accuracy_score,
    "balanced_accuracy": sklearn.metrics.balanced_accuracy_score,
    "f1": lambda labels, positive: sklearn.metrics.f1_score(labels, positive, zero_division=0),
    "costs": lambda labels, positive: -np.where(labels, COSTS[1], COSTS[0])[labels != positive].sum(),
}


def lopsided(seed: int, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """One photo in six is of the second class; rounded, so that there are ties."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 6 == 0
    return np.round(rng.normal(np.where(labels, 0.5, -2.5), 1.5), 1), labels


@pytest.mark.parametrize("decide_by", SCORES)
@pytest.mark.parametrize("seed", range(2))
def test_no_threshold_is_better_than_the_one_that_is_chosen(decide_by: str, seed: int):
    logits, labels = lopsided(seed)
    costs = COSTS if decide_by == "costs" else None
    found = calibration.calibrate(logits, labels, decide_by, costs=costs)
    p, score = 1 / (1 + np.exp(-logits / found.temperature)), SCORES[decide_by]
    prior = 1 / 8 if costs else 0.5
    edges = np.unique([0.0, *p, 1.0])
    tried = np.clip([prior, *(edges[1:] + edges[:-1]) / 2], 0.001, 0.999)
    scores = np.array([score(labels, p >= one) for one in tried])
    best = tried[scores >= scores.max() - 1e-9]
    assert found.threshold == pytest.approx(best[np.argmin(np.abs(best - prior))])


def test_a_threshold_of_scikit_learn_is_as_good():
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import TunedThresholdClassifierCV

    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(400, 3)), np.arange(400) % 8 == 0
    x[labels] += 1
    fitted = LogisticRegression().fit(x, labels)
    tuned = TunedThresholdClassifierCV(
        FrozenEstimator(fitted), scoring="balanced_accuracy", cv="prefit", refit=False, thresholds=500
    ).fit(x, labels)
    p = fitted.predict_proba(x)[:, 1]
    ours = calibration.best_threshold(labels, p, "balanced_accuracy")
    found = sklearn.metrics.balanced_accuracy_score(labels, p >= ours)
    assert tuned.best_score_ - 1e-12 <= found <= tuned.best_score_ + 0.01


def test_of_equally_good_thresholds_the_one_that_needs_no_photos_is_kept():
    labels, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.9, 0.95])
    for decide_by in ("accuracy", "balanced_accuracy", "f1"):
        assert calibration.best_threshold(labels, p, decide_by) == 0.5
    assert calibration.best_threshold(labels, p, "costs", (3, 1)) == 0.75
    assert calibration.best_threshold(labels, p / 10, "accuracy") == pytest.approx(0.055)  # the middle of the gap
    assert calibration.best_threshold(labels, p, "costs", (1, 10_000)) == pytest.approx(
        0.55
    )  # 1 / 10,001 costs two mistakes
    tiny = np.array([1e-7, 2e-7, 3e-7, 4e-7])
    assert calibration.best_threshold(labels, tiny, "balanced_accuracy") in (
        0.001,
        0.5,
    )  # none inside the limits is better


def test_a_head_of_today_keeps_its_recipe():
    logits, labels = overconfident()
    assert list(calibration.calibrate(logits, labels).recipe()) == [
        "temperature",
        "abstain_below",
        "calibration_photos",
    ]
    assert (
        calibration.calibrate(logits, labels, threshold=0.5).recipe() == calibration.calibrate(logits, labels).recipe()
    )
    given = calibration.calibrate(logits, labels, threshold=0.2).recipe()
    assert given["threshold"] == 0.2
    assert "decide_by" not in given
    chosen = calibration.calibrate(logits, labels, "costs", costs=(1, 5)).recipe()
    assert (chosen["decide_by"], chosen["costs"]) == ("costs", [1, 5])
    assert chosen["threshold_photos"] == min(labels.sum(), (1 - labels).sum())


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_the_level_to_abstain_at_is_of_the_class_that_is_decided_for(threshold: float):
    logits, labels = overconfident()
    found = calibration.calibrate(logits, labels, threshold=threshold)
    p = 1 / (1 + np.exp(-logits / found.temperature))
    decided = np.where(p >= threshold, p, 1 - p)
    assert found.abstain_below == pytest.approx(np.quantile(decided, 0.01, method="lower"))
    judged = calibration.abstention(labels, p, found.abstain_below, threshold)
    assert judged["coverage"] == pytest.approx(0.99, abs=0.0005)
    kept = decided >= found.abstain_below
    assert judged["accuracy"] == pytest.approx(((p >= threshold) == labels)[kept].mean(), abs=0.0005)


def test_a_threshold_that_few_photos_chose_is_said_to_be_chance():
    logits, labels = lopsided(0)
    for n, few in ((119, 20), (113, 19)):
        recipe = calibration.calibrate(logits[:n], labels[:n], "f1").recipe()
        assert recipe["threshold_photos"] == few
        said = [one for one in calibration.warnings(recipe) if "threshold" in one]
        expected = (
            f"The threshold {recipe['threshold']:.3g} was chosen by f1 on photos of which only 19 are of the smaller "
            "class: below 20 it is mostly chance, and other photos would choose another."
        )
        assert said == ([expected] if few < 20 else [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0.0}, "--threshold: expected 0.001 to 0.999, found 0.0."),
        ({"threshold": 1.5}, "--threshold: expected 0.001 to 0.999, found 1.5."),
        ({"threshold": float("nan")}, "--threshold: expected 0.001 to 0.999, found nan."),
        (
            {"threshold": 0.2, "decide_by": "f1"},
            "--threshold: expected none with --decide-by f1, which chooses it, found 0.2. Leave one of the two out.",
        ),
        ({"decide_by": "costs"}, "--costs: expected two numbers with --decide-by costs, found none. Say what"),
        (
            {"costs": (1.0, 2.0), "decide_by": "f1"},
            "--costs: expected --decide-by costs beside it, found --decide-by f1. Add it, or leave --costs out.",
        ),
        ({"costs": (1.0, -2.0), "decide_by": "costs"}, "--costs: expected more than 0, found (1.0, -2.0)."),
        ({"costs": (0.0, 2.0), "decide_by": "costs"}, "--costs: expected more than 0, found (0.0, 2.0)."),
        ({"costs": (1.0, float("nan")), "decide_by": "costs"}, "--costs: expected more than 0, found (1.0, nan)."),
        (
            {"costs": (1.0, float("inf")), "decide_by": "costs"},
            "--costs: expected two finite numbers, found (1.0, inf).",
        ),
        ({"costs": (1.0,), "decide_by": "costs"}, "--costs: expected two finite numbers, found (1.0,)."),
        ({"decide_by": "luck"}, "--decide-by: expected half, accuracy, balanced_accuracy, f1 or costs, found luck."),
    ],
)
def test_settings_of_the_decision_that_contradict_each_other(settings: dict, message: str):
    logits, labels = lopsided(0)
    with pytest.raises(UsageError) as caught:
        calibration.calibrate(logits, labels, **settings)
    assert str(caught.value).startswith(message)
