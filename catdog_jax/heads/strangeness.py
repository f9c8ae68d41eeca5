"""How unlike the photos of the training a photo is: how much of its features lies outside of the space that theirs fill.

Features are brought to length 1, so that contrast and sharpness, which make all of them larger, do
not count. The mean of the training photos and their first `RANK` principal directions span a space;
the strangeness is the squared distance from it. It is the residual of Wang et al., "ViM:
Out-Of-Distribution with Virtual-logit Matching", 2022, on features of length 1; of a dozen methods
it finds strangers best (artifacts/strangers/methods.csv), and 16 directions are found in few photos.

The level above which a photo is of neither class is chosen on photos that the space was not fitted
to, so that 99 % of further ones stay below on average; few photos tell little of their extremes, and
what share is certain to stay below is said beside it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from catdog_jax.backbone.layers import CHANNELS
from catdog_jax.backbone.pooling import Pool
from catdog_jax.files import atomic, sealed

RANK = 16  # principal directions
ACCEPTED = 0.99  # of photos of the two classes, on average, that are not to be called strangers
# Photos to choose the level on. The highest of n values has n / (n + 1) of all below it: of fewer, less than ACCEPTED
MIN_UNSEEN = 100
MIN_FITTED = 4 * RANK  # photos to fit the space to: of fewer it is mostly chance, and fewer strangers are found
_SURE = 0.95  # of the share that is accepted at least
TINY = 1e-12  # added to a squared length, so that features of nothing but 0 have one


@dataclass(frozen=True, eq=False)
class Strangeness:
    """The space of the training photos. `strangeness(x)` is the squared distance from it, float64 [N].

    Attributes:
      mean: float32 [columns], of features of length 1.
      basis: float32 [columns, RANK], the principal directions, orthonormal.
    """

    mean: np.ndarray
    basis: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """From features [N, columns] to float64 [N], from 0 (in the space) to some 1 (nothing alike)."""
        apart = unit(x) - self.mean
        return (apart**2).sum(axis=1) - ((apart @ self.basis.astype(np.float64)) ** 2).sum(axis=1)

    @property
    def sha256(self) -> str:
        """The SHA-256 over the shapes and values of its tensors."""
        arrays = {"mean": self.mean, "basis": self.basis}
        return sealed.sha256_of_json(
            [
                [name, list(a.shape), atomic.sha256(np.ascontiguousarray(a, "<f4").tobytes())]
                for name, a in arrays.items()
            ]
        )


@dataclass(frozen=True)
class Level:
    """The strangeness above which a photo is of neither class, and what is known of it.

    Attributes:
      above: the level.
      photos: how many photos chose it, which the space was not fitted to.
      accepts: the share of further photos of the two classes that stay below, at least, with a
        certainty of 95 %.
    """

    above: float
    photos: int
    accepts: float

    def recipe(self) -> dict[str, Any]:
        """What the recipe of a head keeps of it."""
        return {"strange_above": self.above, "strange_photos": self.photos, "strange_accepts": self.accepts}


def seen_of(pool: Pool) -> Pool:
    """The pooling that the strangeness sees of features of another: averages, or maxima where there is nothing else."""
    return Pool.AVG if pool.gives(Pool.AVG) else Pool.MAX


def seen(x: np.ndarray, pool: Pool) -> np.ndarray:
    """What the strangeness sees of features [N, columns] of a pooling: [N, channels]."""
    x = np.asarray(x)
    grid = math.isqrt(x.shape[1] // CHANNELS)  # of cells; averages and maxima have none
    return pool.convert(x.reshape(len(x), *pool.shape(grid)), seen_of(pool))


def unit(x: np.ndarray) -> np.ndarray:
    """Rows [N, columns] of length 1, in float64."""
    x = np.asarray(x, np.float64)
    return x / np.sqrt((x**2).sum(axis=1, keepdims=True) + TINY)


def fit(chunks: Iterable[np.ndarray]) -> Strangeness:
    """Fits the space to rows, which come in chunks [n, columns] and are looked at once.

    The directions are those of the largest eigenvalues of the covariance, summed up in float64. The
    sign of a direction, which means nothing, is that with which its largest entry is positive, so that
    the same rows give the same bytes.
    """
    count, total, products = 0, np.zeros(()), np.zeros(())
    for chunk in chunks:
        rows = unit(chunk)
        count, total, products = count + len(rows), total + rows.sum(axis=0), products + rows.T @ rows
    mean = total / count
    _, directions = np.linalg.eigh(products / count - np.outer(mean, mean))
    basis = directions[:, ::-1][:, :RANK]
    largest = np.take_along_axis(basis, np.abs(basis).argmax(axis=0)[None], axis=0)
    return Strangeness(mean.astype(np.float32), (basis * np.sign(largest)).astype(np.float32))


def level(values: np.ndarray) -> Level:
    """The level that unseen photos of the two classes choose by their strangeness [N].

    It is one of the values, the lowest that `ACCEPTED` of all photos stay below on average: the k-th
    of n, where k / (n + 1) is that much. The quantile of the values would be lower, and too low. The
    share of all photos that stay below the k-th is of a beta distribution, Beta(k, n + 1 - k),
    whatever the photos are like (Wilks, "Determination of sample sizes for setting tolerance
    limits", 1941), which says what share is certain. A level of which 99 % were certain would be that
    of the strangest photo or two of some hundred, often no photo of the two classes at all.

    Example:
      >>> level(np.arange(1000.0)).above
      990.0
    """
    ordered = np.sort(np.asarray(values, np.float64))
    n = len(ordered)
    k = min(n, math.ceil(round(ACCEPTED * (n + 1), 9)))
    return Level(float(ordered[k - 1]), n, float(stats.beta.ppf(1 - _SURE, k, n + 1 - k)))


Fitted = tuple[Strangeness | None, dict[str, Any], str]  # with what the recipe keeps, or a note why there is none
NOTHING: Fitted = (None, {}, "")  # of columns that are no features of this package


def of_splits(train: Iterable[np.ndarray], validation: Iterable[np.ndarray], photos: int) -> Fitted:
    """Fits to the rows of training, and chooses the level on those of validation, a row a photo.

    Both come in chunks [n, channels], of `seen`; `photos` are those of training, of which a photo may
    have several rows.
    """
    unseen = np.concatenate(list(validation))
    if note := too_few(photos, len(unseen)):
        return None, {}, note
    fitted = fit(train)
    return fitted, level(fitted(unseen)).recipe(), ""


def of_folds(x: np.ndarray, folds: np.ndarray) -> Fitted:
    """Fits to all photos, and chooses the level by those of each fold, as others are fitted to the rest.

    Args:
      x: [N, views, channels], of `seen`.
      folds: int [N], of one repeat of a cross-validation.
    """
    count, views, columns = x.shape
    if note := too_few(count - int(np.bincount(folds).max()), count):
        return None, {}, note
    values = np.zeros(count)
    for fold in np.unique(folds):
        held = folds == fold
        values[held] = fit([x[~held].reshape(-1, columns)])(x[held, 0])
    return fit([x.reshape(count * views, columns)]), level(values).recipe(), ""


def too_few(fitted: int, chose: int) -> str:
    """Why so many photos give no strangeness, in a sentence; empty where they do."""
    if fitted >= MIN_FITTED and chose >= MIN_UNSEEN:
        return ""
    return (
        f"strangeness: it needs {MIN_FITTED} photos to be fitted to and {MIN_UNSEEN} others to choose its level on, and there "
        f"are {fitted:,} and {chose:,}: the model will not tell photos of neither class"
    )
