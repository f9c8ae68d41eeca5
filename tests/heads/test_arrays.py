"""Heads on features of arrays: any columns with labels, held against scikit-learn, and what is refused."""

import dataclasses

import numpy as np
import pytest
from helpers.caches import make_cache
from sklearn.linear_model import LogisticRegression

from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.heads import head, rows, training
from catdog_jax.photos.fingerprint import Fingerprint

pytestmark = pytest.mark.lenient_types
RECIPE = {"head": "linear", "dropout": 0.0, "epochs": 30, "learning_rate": 0.1}


def clouds(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds of points in seven columns, of which one says nothing and one is constant."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    x = rng.standard_normal((count, 7)).astype(np.float32)
    x[:, :5] += labels[:, None]
    x[:, 6] = 3
    return x, labels


def test_a_head_on_any_columns_is_as_good_as_logistic_regression():
    features, validation, unseen = clouds(600), clouds(300, 1), clouds(2000, 2)
    fitted = training.train(features, validation=validation, classes=("no", "yes"), **RECIPE)
    expected = LogisticRegression().fit(*features).score(*unseen)
    found = fitted(unseen[0])
    assert (found.dtype, found.shape) == (np.float64, (2000,))
    assert ((found >= 0.5) == unseen[1]).mean() == pytest.approx(expected, abs=0.02)
    assert (fitted.classes, fitted.columns, fitted.pool) == (("no", "yes"), 7, None)
    assert fitted.best == min(fitted.history, key=lambda epoch: epoch.validation_loss)


def test_without_validation_rows_a_tenth_of_each_class_is_held_out():
    x, y = clouds(200)
    found = rows.of_arrays((x, y), seed=3)
    trained, held = (found.load(split, "none")[0]() for split in ("train", "validation"))
    assert [int(held.y.sum()), len(held.y) - int(held.y.sum())] == [round(y.sum() / 10), round((200 - y.sum()) / 10)]
    both = np.concatenate([np.asarray(trained.x), np.asarray(held.x)])
    np.testing.assert_array_equal(both[np.lexsort(both.T)], x[np.lexsort(x.T)])
    again, other = (rows.of_arrays((x, y), seed=seed).load("validation", "none")[0]() for seed in (3, 4))
    np.testing.assert_array_equal(again.x, held.x)
    assert not np.array_equal(other.x, held.x)


def test_arrays_that_are_too_large_stream_in_parts():
    x, y = clouds(rows._PART + 10)
    parts = rows.of_arrays((x, y), (x[:9], y[:9]), resident_gib=1e-9).load("train", "none")
    assert [len(load().y) for load in parts] == [rows._PART, 10]
    np.testing.assert_array_equal(np.concatenate([load().x for load in parts]), x)


def test_the_file_says_that_the_features_are_of_other_origin(tmp_path):
    fitted = training.train(clouds(100), **RECIPE)
    fitted.save(tmp_path / "head.safetensors")
    loaded = head.load(str(tmp_path / "head.safetensors"))
    np.testing.assert_array_equal(loaded(clouds(5)[0]), fitted(clouds(5)[0]))
    assert loaded.recipe["features"] == "arrays that are not known to be features of catdog_jax"
    assert (loaded.fingerprint, loaded.pool, loaded.history, loaded.best) == (Fingerprint(), None, (), None)
    with pytest.raises(CatdogError, match=r"head: expected one .* features of this package, found one of 7 columns"):
        _ = loaded.own_pool
    damaged = dataclasses.replace(loaded, params={"output": {"kernel": np.zeros((7, 2)), "bias": np.zeros(2)}})
    damaged.save(tmp_path / "head.safetensors")
    with pytest.raises(CatdogError, match="2 outputs"):
        head.load(tmp_path / "head.safetensors")


def test_rows_of_a_cache_train_the_head_of_the_cache(tmp_path):
    cache = make_cache(tmp_path / "features")
    pairs = {split: (cache.load(split, "avg")[:, 0], cache.labels(split)) for split in ("train", "validation")}
    options = {"pool": "avg", "epochs": 3, "hidden": (4,)}
    expected = training.train(cache, **options)
    own = {"fingerprint": cache.fingerprint, "validation": pairs["validation"]}
    found = training.train(pairs["train"], **own, **options)
    assert head.digest(found.params) == head.digest(expected.params)
    assert (found.fingerprint, found.classes, found.pool) == (cache.fingerprint, cache.classes, "avg")
    assert found.recipe == expected.recipe
    assert found.history == expected.history


def test_a_sweep_over_arrays_keeps_the_best():
    fitted = training.train(clouds(100), sweep=3, **RECIPE | {"epochs": 2})
    assert len(fitted.sweep) == 3
    assert fitted.best == fitted.sweep[0].best
    losses = [trial.best.validation_loss for trial in fitted.sweep]
    assert losses == sorted(losses)
    assert "7 features" in repr(fitted)


X, Y = clouds(20)


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        ((X[0], Y), {}, r"features: expected x of numbers, \[N, columns\], found float32 \[7\]"),
        ((X[:0], Y[:0]), {}, r"features: expected x of numbers, \[N, columns\], found float32 \[0, 7\]"),
        ((X.astype(str), Y), {}, r"features: expected x of numbers"),
        ((X, Y[:5]), {}, r"features: expected a label of 0 or 1 a row, \[20\], found int64 \[5\]"),
        ((X, Y + 1), {}, r"features: expected labels of 0 or 1, found 2"),
        ((X, np.zeros(20)), {}, "features: expected rows of both classes, found none with the label 1"),
        ((np.where(np.arange(20)[:, None] > 17, np.nan, X), Y), {}, "found others in 2 rows, the first of them 18"),
        ((X, np.arange(20) == 3), {}, "features: expected 2 or more rows of each class, found 1 with the label 1"),
        ((X, Y), {"validation": (X[:, :3], Y)}, r"validation: expected x \[N, 7\], found \[20, 3\]"),
        ((X, Y), {"pool": "avg"}, "--pool: expected one of 7 columns, found avg, which has 512"),
        ((X, Y), {"classes": ("a", "a")}, "--classes: expected the names of two classes"),
        ((X, Y), {"preset": "best"}, "--preset: expected default or reference, found best"),
        ((X, Y), {"head": "deep"}, "--head: expected mlp or linear, found deep"),
    ],
)
def test_other_arrays_are_refused_by_name(features, options, message):
    with pytest.raises(UsageError, match=message):
        training.train(features, **options)


def test_what_is_no_features_at_all_is_a_wrong_type(tmp_path):
    with pytest.raises(TypeError, match=r"features: expected a FeatureCache, its path, or a pair .*, found ndarray"):
        training.train(X)
    with pytest.raises(TypeError, match=r"validation: expected .* a pair .*, found int"):
        training.train((X, Y), validation=3)
    with pytest.raises(UsageError, match="classes: expected none beside a feature cache"):
        training.train(make_cache(tmp_path / "features"), classes=("a", "b"))
    with pytest.raises(UsageError, match=r"x: expected features \[N, 7\], found float32 \[7\]"):
        training.train((X, Y), **RECIPE)(X[0])
