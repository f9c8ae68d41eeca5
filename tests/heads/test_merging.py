"""A sweep on an accelerator: heads of several poolings and widths in one program, each as if it were alone."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from catdog_jax.backbone.pooling import Pool
from catdog_jax.config import Recipe
from catdog_jax.heads import fitting, merging, search, steps
from catdog_jax.heads.rows import UNSCALED, Chunk

pytestmark = pytest.mark.lenient_types

COLUMNS = 6  # of avg and of max each
BASE = Recipe(batch_size=32, epochs=4, patience=2, learning_rate=0.02, l2=1e-3, hidden=(8,), dropout=0.4, min_steps=1)
RECIPES = [
    BASE,
    dataclasses.replace(BASE, pool="avg", hidden=(4,), dropout=0.3),
    dataclasses.replace(BASE, pool="max", hidden=(2,), dropout=0.0, label_smoothing=0.1),
    dataclasses.replace(BASE, pool="max", hidden=(8,), l2=0.01, learning_rate=0.1, decay_rate=0.5),
    dataclasses.replace(BASE, pool="avg", hidden=(), dropout=0.5),
    dataclasses.replace(BASE, pool="max", hidden=(), dropout=0.0),
    dataclasses.replace(BASE, pool="max", hidden=(), dropout=0.5),
]


@pytest.fixture(scope="module")
def load():
    """The rows of two overlapping clouds by split and pooling, in one chunk."""
    rng, whole = np.random.default_rng(0), {}
    for split, count in (("train", 150), ("validation", 60)):
        y = rng.integers(0, 2, count).astype(np.float32)
        whole[split] = Chunk((rng.standard_normal((count, 2 * COLUMNS)) + 0.5 * y[:, None]).astype(np.float32), y)

    def loaders(split, pool):
        part = {"avg": slice(0, COLUMNS), "max": slice(COLUMNS, None), "avg+max": slice(None)}[pool]
        return [functools.partial(Chunk, whole[split].x[:, part], whole[split].y)]

    return loaders


@pytest.mark.parametrize("standardise", [True, False])
def test_a_sweep_on_an_accelerator_is_the_heads_fitted_alone(load, monkeypatch, standardise):
    recipes = [dataclasses.replace(recipe, standardise=standardise) for recipe in RECIPES]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = {id(result.recipe): result for result in search.search(recipes, load, seed=3)}
    for recipe in recipes:
        result, alone = found[id(recipe)], search.fit_one(recipe, load, seed=3)
        assert len(result.fit.history) == len(alone.fit.history)
        np.testing.assert_allclose(np.array(result.fit.history), np.array(alone.fit.history), rtol=1e-4)
        assert list(result.fit.params) == list(alone.fit.params)
        for name, layer in alone.fit.params.items():
            for part, expected in layer.items():
                assert result.fit.params[name][part].flags.c_contiguous
                np.testing.assert_allclose(result.fit.params[name][part], expected, rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(result.scaling.mean, alone.scaling.mean)
        np.testing.assert_array_equal(result.scaling.deviation, alone.scaling.deviation)
        assert (result.scaling is UNSCALED) != standardise


def test_what_a_head_begins_with_is_what_it_begins_with_alone():
    key = jax.random.key(1)
    merged = merging.merge(RECIPES[:4], "avg+max", 2 * COLUMNS)
    begun = jax.tree.map(np.asarray, merged.initial(key, 2 * COLUMNS))
    for i, recipe in enumerate(RECIPES[:4]):
        columns = 2 * COLUMNS if recipe.pool == "avg+max" else COLUMNS
        alone = steps.initial(key, columns, steps.Shape(recipe.hidden, 32, 1), 1).params
        for name, layer in merged.taken(begun, i).items():
            np.testing.assert_allclose(layer["kernel"], alone[name]["kernel"][0], rtol=1e-6)
        inside = sum(np.count_nonzero(layer["kernel"]) for layer in merged.taken(begun, i).values())
        assert sum(np.count_nonzero(layer["kernel"][i]) for layer in begun.values()) == inside


def test_units_that_are_added_stay_zero(load):
    merged = merging.merge(RECIPES[:4], "avg+max", 2 * COLUMNS)
    shape = steps.Shape(merged.hidden, 32, 5, merged.drawn)
    state = steps.started(merged.initial(jax.random.key(0), 2 * COLUMNS))
    chunk, hyper = load("train", "avg+max")[0](), steps.hypers(RECIPES[:4])
    state, _ = steps.run_chunk(state, chunk, jax.random.key(1), UNSCALED, hyper, shape, cut=merged.cut)
    third = jax.tree.map(lambda array: np.asarray(array[2]), state.params)  # the pooling max, 2 of 8 units
    assert not third["dense_0"]["kernel"][:COLUMNS].any()
    assert not third["dense_0"]["kernel"][:, 2:].any()
    assert not third["dense_0"]["bias"][2:].any()
    assert not third["output"]["kernel"][2:].any()
    assert third["dense_0"]["kernel"][COLUMNS:, :2].all()


def sweep() -> list[Recipe]:
    return search.draw(Recipe(), search.POOLS, 48, 0, lambda _: False, 15_000)


def test_a_sweep_of_48_heads_has_two_shapes():
    groups = merging.groups(sweep(), together=True, across=True)
    assert sorted(map(len, groups)) == [12, 36]
    assert {merging.pooling(group) for group in groups} == {"avg+max"}
    assert len(merging.groups(sweep(), together=True, across=False)) == 6
    assert len(merging.groups(sweep(), together=False, across=False)) == 36 + 3


def test_one_program_is_compiled_for_a_shape(load, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    steps.run_chunk.clear_cache()
    search.search([dataclasses.replace(recipe, epochs=1) for recipe in RECIPES], load, seed=0)
    assert steps.run_chunk._cache_size() == 2


def test_what_cannot_share_stays_alone():
    deep = dataclasses.replace(BASE, hidden=(8, 4))
    flat = dataclasses.replace(BASE, pool="none")
    exact = dataclasses.replace(BASE, hidden=(), solver="newton", dropout=0.0)
    for recipes in ([BASE, deep], [BASE, flat], [dataclasses.replace(BASE, hidden=()), exact]):
        assert len(merging.groups(recipes, together=True, across=True)) == 2
    assert merging.merge([deep, deep], None, 6) == merging.Merged((merging.Place(0, 6, (8, 4)),) * 2, (8, 4), (), None)


def test_poolings_share_only_what_is_one_chunk(load, monkeypatch):
    """Another number of chunks is another order of the rows."""

    def streamed(split, pool):
        return load(split, pool) * (2 if pool == Pool.AVG_MAX and split == "train" else 1)

    assert len(search._groups(RECIPES, load, together=True)) == 2
    assert len(search._groups(RECIPES, streamed, together=True)) == 5
    (alone,) = search._groups(RECIPES[:1], None, together=True)  # nothing is loaded where nothing is shared
    assert alone == RECIPES[:1]


def test_a_head_alone_is_fitted_as_before(load):
    """No cut, no masks: the program of a single head is what it was."""
    assert merging.merge([BASE], None, 12).cut is None
    assert merging.merge([BASE, dataclasses.replace(BASE, dropout=0.1)], "avg+max", 12).cut is None
    (found,) = fitting.fit_many([BASE], load("train", "avg+max"), load("validation", "avg+max"), UNSCALED, 0)
    assert found.params["dense_0"]["kernel"].shape == (12, 8)
