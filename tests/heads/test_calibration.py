"""Temperature scaling against a grid, and the confidence to abstain below against its definition."""

import numpy as np
import pytest

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
