"""Many heads at once: each as if it were alone."""

import dataclasses
import functools

import numpy as np
import pytest

from catdog_jax.config import Recipe
from catdog_jax.heads import fitting, head
from catdog_jax.heads.rows import UNSCALED, Chunk, Loaders

pytestmark = pytest.mark.lenient_types

LINEAR = Recipe(hidden=(), dropout=0.0, batch_size=32, epochs=6, patience=2, learning_rate=0.02)


@pytest.fixture(scope="module")
def rows() -> list[Loaders]:
    """Training and validation rows of two overlapping clouds."""
    rng = np.random.default_rng(0)
    found = []
    for count in (150, 60):
        y = rng.integers(0, 2, count).astype(np.float32)
        x = (rng.standard_normal((count, 12)) + 0.5 * y[:, None]).astype(np.float32)
        found.append([functools.partial(Chunk, x, y)])
    return found


@pytest.mark.parametrize("shared", [{}, {"dropout": 0.4}, {"hidden": (8,), "dropout": 0.3}])
def test_heads_fitted_at_once_are_those_fitted_alone(rows, shared):
    recipes = [
        dataclasses.replace(LINEAR, **shared, learning_rate=rate, l2=l2, decay_rate=decay, label_smoothing=smoothing)
        for rate, l2, decay, smoothing in ((0.02, 0.0, 0.9, 0.0), (0.1, 0.01, 0.5, 0.0), (0.001, 0.001, 1.0, 0.2))
    ]
    together = fitting.fit_many(recipes, *rows, UNSCALED, seed=3)
    for recipe, found in zip(recipes, together, strict=True):
        alone = fitting.fit(recipe, *rows, UNSCALED, seed=3)
        assert len(alone.history) == len(found.history)
        np.testing.assert_allclose(np.array(found.history), np.array(alone.history), rtol=1e-4)
        for name, layer in alone.params.items():
            np.testing.assert_allclose(found.params[name]["kernel"], layer["kernel"], rtol=1e-3, atol=1e-5)
    assert len({found.best.validation_loss for found in together}) == 3


def test_the_kept_parameters_are_those_of_the_best_epoch(rows):
    (found,) = fitting.fit_many([dataclasses.replace(LINEAR, learning_rate=0.5)], *rows, UNSCALED, seed=0)
    chunk = rows[1][0]()
    logits = chunk.x.astype(np.float64) @ found.params[head.OUTPUT]["kernel"] + found.params[head.OUTPUT]["bias"]
    loss = np.logaddexp(0, np.where(chunk.y > 0, -1, 1) * logits[:, 0]).mean()
    assert loss == pytest.approx(found.best.validation_loss, rel=1e-4)
    assert found.best.validation_loss == min(epoch.validation_loss for epoch in found.history)


def test_one_head_that_diverges_does_not_end_the_others(rows):
    recipes = [dataclasses.replace(LINEAR, l2=l2, learning_rate=rate) for l2, rate in ((1.0, 1e38), (0.0, 0.02))]
    broken, sound = fitting.fit_many(recipes, *rows, UNSCALED, seed=0)
    assert not np.isfinite(broken.history[-1].train_loss) or not np.isfinite(broken.history[-1].validation_loss)
    assert len(sound.history) > len(broken.history)
    assert np.isfinite(sound.best.validation_loss)
