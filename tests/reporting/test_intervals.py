"""Intervals against SciPy, published examples and the truth: how often they cover it, by enumeration where that is possible."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest, multinomial, norm

from catdog_jax.reporting import intervals

COUNTS = (10, 20, 50, 200, 2000)
RATES = (0.5, 0.9, 0.95, 0.99, 1.0)


def covers(ends: tuple, truth: float) -> np.ndarray:
    return (ends[0] <= truth + 1e-9) & (truth <= ends[1] + 1e-9)


# ----------------------------------------------------------------------------------------------------
# shares


@pytest.mark.parametrize(("count", "total"), [(13, 13), (0, 10), (81, 263), (1, 2), (1974, 2000)])
def test_the_interval_of_a_share_is_scipys(count: int, total: int):
    expected = binomtest(count, total).proportion_ci(method="wilson")
    assert intervals.of_share(count, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_known_intervals_of_shares():
    assert intervals.of_share(13, 13) == pytest.approx((0.7719, 1), abs=5e-5)
    assert intervals.of_share(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, table I
    assert intervals.of_share(0, 0) == (0, 1)
    low, high = intervals.wilson(np.array([0.0, 1.0]), 40)
    assert (low[0], high[1]) == (0, 1)


def test_intervals_of_shares_cover_95_in_100():
    """Exactly, over all outcomes. Wilson's interval covers 95 % on average; it dips where n (1 - p) is about 0.1 to 1."""
    found = np.array(
        [
            [binom.pmf(k := np.arange(n + 1), n, p) @ covers(intervals.wilson(k / n, n), p) for p in RATES]
            for n in COUNTS
        ]
    )
    assert found.mean() >= 0.95
    assert found.min() >= 0.90
    assert (found >= 0.93).mean() >= 0.8
    assert found[-2:].min() >= 0.94  # from 200 photos on
    assert found[:, -1].min() == 1  # without a mistake


def test_where_a_shares_interval_misses_it_says_too_many_mistakes():
    """The worst that there is: 0.18 mistakes expected, and one that happens."""
    for n in COUNTS:
        k, wrong = np.arange(n + 1), 0.176 / n
        low, high = intervals.wilson(k / n, n)
        weights = binom.pmf(k, n, wrong)
        assert weights @ covers((low, high), wrong) == pytest.approx(0.838, abs=0.005)
        assert weights @ (wrong <= high) == pytest.approx(1)


@pytest.mark.parametrize("ratio", [1, 10])
def test_intervals_of_balanced_accuracy_cover_95_in_100(ratio: int):
    """By enumeration: the photos of either class that are right are two independent counts."""
    found = []
    for n in (10, 20):
        for rate in RATES:
            for other in (rate, 0.95):
                k, m = np.arange(n + 1), np.arange(n * ratio + 1)
                weights = binom.pmf(k, n, rate)[:, None] * binom.pmf(m, n * ratio, other)[None]
                kept = np.argwhere(weights > 1e-4)
                ends = np.array([intervals.of_mean_of_shares((k[i], n), (m[j], n * ratio)) for i, j in kept])
                inside = covers((ends[:, 0], ends[:, 1]), (rate + other) / 2)
                found.append(weights[tuple(kept.T)] @ inside / weights[tuple(kept.T)].sum())
    assert np.mean(found) >= 0.95
    assert np.min(found) >= 0.89


def test_the_interval_of_balanced_accuracy_is_newcombes_and_does_not_collapse():
    # Newcombe 1998 (II), method 10 of 56/70 and 48/80: their difference from 0.0524 to 0.3339. A mean of shares is that of the
    # first and of the others' complement
    low, high = intervals.of_mean_of_shares((56, 70), (32, 80))
    assert (2 * low - 1, 2 * high - 1) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    low, high = intervals.of_mean_of_shares((13, 13), (300, 300))
    assert high == 1
    assert 0.85 < low < 0.9
    assert intervals.of_mean_of_shares((0, 5), (0, 5))[0] == 0


@pytest.mark.parametrize("prevalence", [0.1, 0.5])
def test_intervals_of_f1_cover_95_in_100(prevalence: float):
    """By enumeration: of n photos T are or are judged positive, and of these some rightly."""
    found = []
    for n in COUNTS:
        for rate in RATES:
            right, wrong = prevalence * rate, 1 - rate
            jaccard, truth = right / (right + wrong), 2 * right / (2 * right + wrong)
            totals = np.arange(1, n + 1)
            weights = binom.pmf(totals, n, right + wrong)
            coverage = 0.0
            for total, weight in zip(totals, weights / weights.sum(), strict=True):
                if weight > 1e-5:
                    count = np.arange(total + 1)
                    low, high = intervals.wilson(count / total, total)
                    coverage += weight * (
                        binom.pmf(count, total, jaccard) @ covers((2 * low / (1 + low), 2 * high / (1 + high)), truth)
                    )
            found.append(coverage)
    assert np.mean(found) >= 0.95
    assert min(found) >= 0.885
    assert np.mean(np.array(found) >= 0.93) >= 0.85


def test_the_interval_of_f1_is_that_of_its_share():
    jaccard = intervals.of_share(50, 60)
    assert intervals.of_f1(50, 10) == pytest.approx(tuple(2 * one / (1 + one) for one in jaccard))
    low, high = intervals.of_f1(6, 0)
    assert (low, high) == (pytest.approx(2 * 6 / (12 + 1.959964**2), abs=1e-6), 1)


# ----------------------------------------------------------------------------------------------------
# ROC AUC, means


def swapped(area: float, share: float) -> tuple[np.ndarray, np.ndarray]:
    """A population of two normal classes of that area, of which a share has the other's label."""
    grid = norm.ppf((np.arange(4000) + 0.5) / 4000)
    positive, negative = grid + np.sqrt(2) * norm.ppf(min(area, 1 - 1e-12)), grid.copy()
    rows = np.random.default_rng(0).permutation(4000)[: int(4000 * share)]
    positive[rows], negative[rows] = negative[rows], positive[rows]
    return positive, negative


def area_of(positive: np.ndarray, negative: np.ndarray) -> float:
    return float(np.searchsorted(np.sort(negative), positive).mean() / len(negative))


@pytest.mark.parametrize("share", [0, 0.01, 0.03], ids=["clean", "1 % swapped", "3 % swapped"])
def test_intervals_of_the_area_cover_95_in_100(share: float):
    generator, found = np.random.default_rng(0), []
    for area in (0.5, 0.9, 0.99, 0.999, 1.0):
        positive, negative = swapped(area, share)
        truth = area_of(positive, negative)
        for m, n in ((5, 5), (10, 10), (25, 25), (20, 80), (100, 100), (1000, 1000)):
            labels, draws = np.repeat((1, 0), (m, n)), []
            for _ in range(150):
                rows = np.concatenate([generator.choice(positive, m), generator.choice(negative, n)])
                draws.append(covers(intervals.of_roc_auc(labels, rows), truth))
            found.append(np.mean(draws))
    assert np.mean(found) >= 0.95
    assert min(found) >= 0.88  # 150 draws: three standard errors below 0.93


def test_the_area_of_a_perfect_and_of_a_blind_head():
    labels = np.repeat((1, 0), 50)
    low, high = intervals.of_roc_auc(labels, labels.astype(float))
    assert 0.9 < low < 0.97
    assert high == 1
    low, high = intervals.of_roc_auc(labels, np.full(100, 0.5))  # all tied: nothing is in order
    assert (low + high) / 2 == pytest.approx(0.5)
    assert high - low > 0.2
    assert intervals.of_roc_auc(np.array([0, 1]), np.array([0.1, 0.9]))[0] < 0.3


def test_the_variance_of_the_area_is_delongs_where_it_is_the_larger():
    """Of 200 photos a class one in twenty is at the other end, so the area is a share in all but name."""
    labels = np.repeat((1, 0), 200)
    scores = labels + np.linspace(0, 0.1, 400)
    scores[::20] = 1 - scores[::20]
    low, high = intervals.of_roc_auc(labels, scores)
    positive, negative = scores[:200], scores[200:]
    above = (positive[:, None] > negative).mean(axis=1), (positive[:, None] > negative).mean(axis=0)
    deviation = np.sqrt(sum(one.var(ddof=1) / 200 for one in above))
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.05)


def test_intervals_of_the_brier_score_cover_95_in_100():
    """Of calibrated heads; at small n one rare mistake lifts the lower end, as of a share, and the upper end holds."""
    generator, found = np.random.default_rng(0), []
    for rate in (0.01, 0.1):
        for n in COUNTS[:-1]:
            sure = generator.beta(1, 8 / (10 * rate), (400, n)) / 2  # the probability of the other class
            wrong = generator.random((400, n)) < sure
            means = np.where(wrong, (1 - sure) ** 2, sure**2).mean(axis=1)
            population = generator.beta(1, 8 / (10 * rate), 200_000) / 2
            truth = (population * (1 - population)).mean()
            ends = intervals.wilson(means, n)
            found.append(covers(ends, truth).mean())
            assert (truth <= ends[1]).mean() >= 0.98
    assert np.mean(found) >= 0.95
    assert min(found) >= 0.84


def test_intervals_of_the_log_loss_where_there_are_mistakes_enough():
    generator, found = np.random.default_rng(0), []
    for n in (200, 500, 2000):
        for scale in (3.0, 6.0):
            logits = generator.normal(0, scale, (300, n))
            labels = generator.random((300, n)) < 1 / (1 + np.exp(-logits))
            losses = np.logaddexp(0, np.where(labels, -logits, logits))
            population = generator.normal(0, scale, 400_000)
            p = 1 / (1 + np.exp(-population))
            truth = (p * np.logaddexp(0, -population) + (1 - p) * np.logaddexp(0, population)).mean()
            enough = ((logits >= 0) != labels).sum(axis=1) >= 10
            found.append(np.mean([covers(intervals.of_log_loss(one), truth) for one in losses[enough]]))
    assert np.mean(found) >= 0.93
    assert min(found) >= 0.90


# ----------------------------------------------------------------------------------------------------
# pairs


@pytest.mark.parametrize("total", [10, 20, 50, 200])
@pytest.mark.parametrize(("worse", "better"), [(0.0, 0.0), (0.01, 0.01), (0.02, 0.005), (0.05, 0.05), (0.1, 0.03)])
def test_intervals_of_a_drop_cover_95_in_100(worse: float, better: float, total: int):
    """Exactly, over all outcomes of photos that one, the other or neither file alone gets right."""
    grid = [(a, b) for a in range(min(total, 60) + 1) for b in range(min(total - a, 60) + 1)]
    weights = multinomial.pmf([[a, b, total - a - b] for a, b in grid], total, [worse, better, 1 - worse - better])
    covered = [covers(intervals.of_paired_drop(a, b, total), worse - better) for a, b in grid]
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    assert weights @ covered >= 0.93


def test_no_differing_photo_does_not_mean_no_difference():
    low, high = intervals.of_paired_drop(0, 0, 1000)
    assert high == -low == pytest.approx(0.00277, abs=1e-5)  # the rule of three says 0.003
