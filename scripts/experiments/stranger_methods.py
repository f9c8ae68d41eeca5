"""Ways to tell strangers by averaged features, to compare with the one that was taken. For strangers.py.

Each is fitted to the rows of cats and dogs, and gives a function from features [N, columns] to scores
[N], the higher the stranger. Sources: Lee et al., "A Simple Unified Framework for Detecting
Out-of-Distribution Samples", 2018 (Mahalanobis); Ren et al., "A Simple Fix to Mahalanobis Distance",
2021 (relative); Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", 2022; Liu et
al., "Energy-based Out-of-distribution Detection", 2020; Wang et al., "ViM", 2022.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression

from catdog_jax.heads import strangeness
from catdog_jax.heads.strangeness import unit

Scorer = Callable[[np.ndarray], np.ndarray]
KEPT, NEIGHBOURS = 1500, 10  # rows that neighbours are looked for in, and which of them counts
SIZES, DRAWS, FOLDS = (100, 200, 300, 500, 1000, 2000), 15, 5  # of `few`
TAKEN = f"residual of {strangeness.RANK}, length 1"


def scorers(x: np.ndarray, labels: np.ndarray, seed: int) -> Iterator[tuple[str, Scorer]]:
    """Each way by name; x are float64 [N, columns], labels [N], 0 or 1."""
    rng = np.random.default_rng(seed)
    for name, scale in (("", _as_it_is), (", length 1", unit)):
        rows = scale(x)
        kept = rows[rng.choice(len(rows), min(KEPT, len(rows)), replace=False)]
        apart, from_class, from_all = _mahalanobis(rows, labels)
        yield f"Mahalanobis, class means{name}", _after(scale, from_class)
        yield f"Mahalanobis, one mean{name}", _after(scale, from_all)
        yield f"Mahalanobis, relative{name}", _after(scale, apart)
        yield f"nearest rows{name}", _after(scale, _neighbours(kept, _as_it_is))
        for rank in (64, 256):
            whitened = _whitener(rows, rank)
            yield (
                f"nearest rows, {rank} whitened, cosine{name}",
                _after(scale, _neighbours(kept, lambda a, whitened=whitened: unit(whitened(a)))),
            )
        for rank in (4, 16, 64, 256):
            yield f"residual of {rank}{name}", _after(scale, _residual(rows, rank))
    logit = LogisticRegression(C=100.0, max_iter=300).fit(unit(x), labels).decision_function
    yield "energy of the logit", lambda a: -np.logaddexp(logit(unit(a)) / 2, -logit(unit(a)) / 2)
    residual = _after(unit, _residual(unit(x), strangeness.RANK))
    spread = residual(x).std()
    yield (
        "residual of 16, length 1, less the energy",
        lambda a: residual(a) / spread - 0.1 * np.logaddexp(logit(unit(a)) / 2, -logit(unit(a)) / 2),
    )


class Few(NamedTuple):
    """What so many photos make of strangeness, over `DRAWS` draws: the means, and the lowest.

    Attributes:
      photos: how many were fitted to, in folds, and chose the level.
      accepted: the share of other photos of the two classes that are not called neither.
      caught: the share of strangers that are.
    """

    photos: int
    accepted: float
    accepted_lowest: float
    caught: float
    caught_lowest: float


def few(x: np.ndarray, others: np.ndarray, strangers: np.ndarray, seed: int) -> Iterator[Few]:
    """How strangeness does of few photos, cross-validated; all are features [N, columns]."""
    rng = np.random.default_rng(seed)
    for size in SIZES:
        shares = []
        for _ in range(DRAWS):
            drawn = x[rng.choice(len(x), size, replace=False)]
            fitted, kept, note = strangeness.of_folds(drawn[:, None], rng.permutation(size) % FOLDS)
            assert fitted is not None, note
            shares.append(
                [(fitted(others) <= kept["strange_above"]).mean(), (fitted(strangers) > kept["strange_above"]).mean()]
            )
        mean, lowest = np.mean(shares, axis=0), np.min(shares, axis=0)
        yield Few(size, *(float(part[i]) for i in (0, 1) for part in (mean, lowest)))


def _as_it_is(x: np.ndarray) -> np.ndarray:
    return x


def _after(scale: Scorer, score: Scorer) -> Scorer:
    return lambda x: score(scale(x))


def _mahalanobis(x: np.ndarray, labels: np.ndarray) -> tuple[Scorer, Scorer, Scorer]:
    """Relative, to the nearer class mean, to the mean of all; covariances shrunk by Ledoit and Wolf."""
    means = np.stack([x[labels == label].mean(axis=0) for label in (0, 1)])
    shared = LedoitWolf(assume_centered=True).fit(x - means[labels.astype(int)]).get_precision()
    whole = LedoitWolf().fit(x)

    def squared(a: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> np.ndarray:
        return np.einsum("ij,ij->i", (a - mean) @ precision, a - mean)

    def from_class(a: np.ndarray) -> np.ndarray:
        return np.minimum(*(squared(a, mean, shared) for mean in means))

    def from_all(a: np.ndarray) -> np.ndarray:
        return squared(a, whole.location_, whole.get_precision())

    return (lambda a: from_class(a) - from_all(a)), from_class, from_all


def _directions(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean, and the variances and directions of the principal components, the largest first."""
    mean = x.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(x.T))
    return mean, variances[::-1], directions[:, ::-1]


def _whitener(x: np.ndarray, rank: int) -> Scorer:
    mean, variances, directions = _directions(x)
    return lambda a: (a - mean) @ directions[:, :rank] / np.sqrt(variances[:rank])


def _residual(x: np.ndarray, rank: int) -> Scorer:
    mean, _, directions = _directions(x)
    return lambda a: ((a - mean) ** 2).sum(axis=1) - (((a - mean) @ directions[:, :rank]) ** 2).sum(axis=1)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances [len(a), len(b)]."""
    return (a**2).sum(axis=1)[:, None] - 2 * a @ b.T + (b**2).sum(axis=1)


def _neighbours(kept: np.ndarray, scale: Scorer) -> Scorer:
    """The squared distance from the `NEIGHBOURS`th nearest of the rows that are kept."""
    scaled = scale(kept)
    return lambda a: np.partition(_distance(scale(a), scaled), NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1]
