"""Temperature scaling against a grid, and the confidence to abstain below against its definition."""

import numpy as np
import pytest

from catdog_jax import calibration, head


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
    losses = [np.logaddexp(0, np.where(labels, -1, 1) * logits / t).mean() for t in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], abs=0.003)
    assert found == pytest.approx(factor, rel=0.1)


def test_few_photos_do_not_decide_and_perfect_ones_do_not_run_away():
    logits, labels = overconfident(calibration.MIN_PHOTOS - 1)
    assert calibration.calibrate(logits, labels).temperature == 1.0
    perfect = np.where(np.arange(500) % 2, 3.0, -3.0)
    assert calibration.calibrate(perfect, perfect > 0).temperature == pytest.approx(0.25, rel=1e-3)


def test_one_photo_in_a_hundred_is_abstained_from():
    logits, labels = overconfident()
    found = calibration.calibrate(logits, labels)
    p = 1 / (1 + np.exp(-logits / found.temperature))
    judged = calibration.abstention(labels, p, found.abstain_below)
    assert judged["coverage"] == pytest.approx(0.99, abs=0.0005)
    sure = np.argsort(np.abs(logits))[-round(judged["coverage"] * len(p)) :]
    assert judged["accuracy"] == pytest.approx(((p >= 0.5) == labels)[sure].mean())
    assert calibration.abstention(labels, p, 1.1) == {"abstain_below": 1.1, "coverage": 0.0, "accuracy": 0.0}


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
