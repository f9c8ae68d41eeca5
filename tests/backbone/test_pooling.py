"""Poolings against NumPy in float64: what a head sees, and what can be had from what is stored."""

import jax
import numpy as np
import pytest

from catdog_jax.backbone.pooling import Pool

GIVES = {  # stored -> what can be had from it
    "avg": {"avg"},
    "max": {"max"},
    "avg+max": {"avg", "max", "avg+max"},
    "none": {"avg", "max", "avg+max", "none"},
}


def reference(cells: np.ndarray, pool: str) -> np.ndarray:
    flat = cells.reshape(*cells.shape[:-3], 49, 512).astype(np.float64)
    return {
        "avg": flat.mean(axis=-2),
        "max": flat.max(axis=-2),
        "avg+max": np.concatenate([flat.mean(axis=-2), flat.max(axis=-2)], axis=-1),
        "none": flat.reshape(*cells.shape[:-3], -1),
    }[pool]


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    return np.random.default_rng(0).random((3, 2, 7, 7, 512), np.float32)


@pytest.mark.parametrize("pool", GIVES)
@pytest.mark.parametrize("library", [np, jax.numpy])
def test_pooling(cells, pool, library):
    found = Pool(pool).apply(library.asarray(cells))
    assert found.shape == (3, 2, Pool(pool).columns(7))
    np.testing.assert_allclose(found, reference(cells, pool), rtol=1e-5)


@pytest.mark.parametrize("stored", GIVES)
def test_what_is_stored_gives_others(cells, stored):
    assert {pool for pool in GIVES if Pool(stored).gives(Pool(pool))} == GIVES[stored]
    kept = reference(cells, stored).reshape(3, 2, *Pool(stored).shape(7)).astype(np.float32)
    for pool in GIVES[stored]:
        found = Pool(stored).convert(kept, Pool(pool))
        assert found.shape == (3, 2, Pool(pool).columns(7))
        np.testing.assert_allclose(found, reference(cells, pool), rtol=1e-5)
        assert np.shares_memory(found, kept) == (pool == stored or stored != "none")  # a memory map stays one


def test_an_unknown_pooling_is_named():
    with pytest.raises(ValueError, match=r"pool: expected avg, max, avg\+max, none, found 'gem'. Choose one of these."):
        Pool("gem")
