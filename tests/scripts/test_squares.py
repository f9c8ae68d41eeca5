"""The experiment on squares: each original is judged by a head that has seen it in neither form."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from catdog_jax.config import EXACT_L2
from catdog_jax.errors import CatdogError
from scripts.experiments.squares import Photos, judged, logits


@pytest.fixture(scope="module")
def squashed() -> Photos:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    return Photos((rng.normal(size=(60, 5)) + y[:, None]).astype(np.float32), y, [f"train/{i}.jpg" for i in range(60)])


def test_each_original_is_judged_by_heads_of_the_other_photos(squashed):
    """Against scikit-learn, which fits each head alone to the photos of the other folds."""
    rng = np.random.default_rng(1)
    picked = rng.permutation(60)[:20]
    originals = Photos(
        squashed.x[picked] + rng.normal(0, 0.1, (20, 5)).astype(np.float32),
        squashed.y[picked],
        [squashed.ids[i] for i in picked],
    )
    found = logits(squashed, originals, 4, seed=3)
    parts = np.random.default_rng(3).permutation(20) % 4
    centre = squashed.x.mean(axis=0)
    length = np.sqrt(((squashed.x - centre) ** 2).sum(axis=1).mean())
    for part in range(4):
        seen = ~np.isin(np.arange(60), picked[parts == part])
        n = int(seen.sum())
        alone = LogisticRegression(C=1 / (2 * n * (EXACT_L2 / n)), tol=1e-10, max_iter=1000)
        alone.fit(((squashed.x[seen] - centre) / length).astype(np.float64), squashed.y[seen])
        expected = alone.decision_function(((originals.x[parts == part] - centre) / length).astype(np.float64))
        np.testing.assert_allclose(found[parts == part], expected, atol=1e-4)


def test_a_row_counts_mistakes_of_both_classes():
    row = judged("crop", Photos(np.zeros((4, 1)), np.array([0, 0, 1, 1]), []), np.array([-1.0, 2.0, 3.0, -4.0]))
    assert (row.photos, row.mistakes, row.accuracy, row.of_second) == (4, 2, 0.5, 1)
    assert row.log_loss == pytest.approx(np.log1p(np.exp([-1.0, 2.0, -3.0, 4.0])).mean())


def test_an_original_of_other_photos_is_an_error(squashed):
    with pytest.raises(CatdogError, match=r"train/x\.jpg: expected a photo that --features holds too, found none\."):
        logits(squashed, squashed._replace(ids=["train/x.jpg", *squashed.ids[1:]]), 4, 0)
