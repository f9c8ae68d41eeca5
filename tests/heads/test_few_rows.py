"""Training that fits the number of rows: exact linear heads, steps in place of passes, balanced classes, and what is said."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from helpers.caches import config, make_cache
from sklearn.linear_model import LogisticRegression

from catdog_jax.backbone.pooling import Pool
from catdog_jax.commands import train
from catdog_jax.config import EXACT_L2, FEW, PRESETS, Recipe
from catdog_jax.errors import UsageError
from catdog_jax.heads import fitting, head, rows, search, steps, training
from catdog_jax.heads.head import Epoch
from catdog_jax.heads.rows import UNSCALED, Chunk

pytestmark = pytest.mark.lenient_types


def clouds(count: int, seed: int = 0, positive: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random(count) < positive).astype(np.float32)
    return (rng.standard_normal((count, 12)) + 0.5 * y[:, None]).astype(np.float32), y


def loaders(count: int, seed: int = 0, parts: int = 1, positive: float = 0.5) -> rows.Loaders:
    x, y = clouds(count, seed, positive)
    return [
        functools.partial(Chunk, *part) for part in zip(np.array_split(x, parts), np.array_split(y, parts), strict=True)
    ]


# Which recipe


def test_the_default_is_a_linear_head_below_so_many_photos_and_an_mlp_from_there_on():
    few, many = (training.resolve("default", None, {}, rows=count) for count in (FEW - 1, FEW))
    assert (few.hidden, few.dropout, few.solver, few.l2) == ((), 0.0, "newton", EXACT_L2 / (FEW - 1))
    assert (few.class_weight, many.class_weight) == ("balanced", "none")
    assert training.resolve("default", None, {"class_weight": "none"}, rows=9).class_weight == "none"
    assert many == PRESETS["default"]
    in_two_views = training.resolve("default", None, {}, rows=2 * (FEW - 1), views=2)
    assert (in_two_views.hidden, in_two_views.l2) == ((), EXACT_L2 / (2 * (FEW - 1)))
    assert training.resolve("default", "linear", {}, rows=15_000).solver == "newton"
    assert training.resolve("default", None, {"solver": "newton"}, rows=15_000).hidden == ()
    assert training.resolve("default", "linear", {"l2": 0.5}, rows=10).l2 == 0.5


@pytest.mark.parametrize(
    ("preset", "head", "given", "hidden"),
    [
        ("default", "mlp", {}, (1024,)),
        ("default", None, {"hidden": (8,)}, (8,)),
        ("default", None, {"epochs": 3}, (1024,)),
        ("default", None, {"solver": "adam"}, (1024,)),
        ("default", "linear", {"epochs": 3}, ()),
        ("default", "linear", {"l2": 0.0}, ()),
        ("reference", None, {}, (256,)),
        ("reference", "linear", {}, ()),
    ],
)
def test_what_asks_for_adam_gets_it_however_few_the_rows(preset, head, given, hidden):
    found = training.resolve(preset, head, given, rows=20)
    assert (found.solver, found.hidden) == ("adam", hidden)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 5}, "--epochs: expected none with --solver newton, which is exact, found 5. Leave it out, or give"),
        ({"learning_rate": 0.1}, "--learning-rate: expected none with --solver newton"),
        ({"head": "mlp"}, "--solver newton: expected a linear head, found --head mlp"),
        ({"hidden": (3,)}, r"--hidden: expected none with --solver newton, .* found \(3,\)"),
        ({"l2": 0.0}, "--l2: expected more than 0 with --solver newton, found 0"),
    ],
)
def test_settings_that_newton_has_not_are_wrong_usage(options, message):
    with pytest.raises(UsageError, match=message):
        training.train(clouds(50), solver="newton", **options)


# Exact heads


def test_an_exact_head_on_arrays_is_scikit_learns():
    """Without a prior of the temperature's: the logits before it divided them."""
    (x, y), validation, unseen = clouds(200), clouds(100, 1), clouds(500, 2)[0]
    fitted = training.train((x, y), validation=validation)
    model = LogisticRegression(C=1 / (2 * EXACT_L2), tol=1e-10, max_iter=10_000, class_weight="balanced")
    x, unseen_x = x.astype(np.float64), unseen.astype(np.float64)
    length = np.sqrt(((x - x.mean(axis=0)) ** 2).sum(axis=1).mean())
    expected = model.fit((x - x.mean(axis=0)) / length, y).decision_function((unseen_x - x.mean(axis=0)) / length)
    p = fitted(unseen)
    np.testing.assert_allclose(np.log(p / (1 - p)) * fitted.recipe["temperature"], expected, rtol=1e-4, atol=1e-4)
    assert fitted.exact
    assert "fitted exactly, validation log loss" in repr(fitted)
    (row,) = fitted.history
    assert (row.epoch, row.learning_rate) == (1, 0)
    logits = np.log(p / (1 - p))
    assert len(logits) == 500
    assert fitted.notes == (
        f"200 training rows: a linear head, fitted exactly; from {FEW:,} on an MLP is trained (--head mlp)",
    )
    assert {"epochs", "learning_rate", "batch_size"}.isdisjoint(fitted.recipe)


def test_the_command_says_how_it_was_fitted_and_writes_one_row(tmp_path, capsys):
    make_cache(tmp_path / "features", views=2)
    fitted = train.train(config(tmp_path, epochs=None, hidden=None))
    shown, notes = (" ".join(text.split()) for text in capsys.readouterr())
    assert "fitted exactly, at the penalty's one minimum: validation log loss" in shown
    assert "300 training photos: a linear head, fitted exactly" in notes
    history = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert len(history) == 2
    assert fitted.recipe["l2"] == EXACT_L2 / 600  # two views are two rows
    again = train.train(config(tmp_path, epochs=None, hidden=None, seed=5))
    assert head.digest(again.params) == head.digest(fitted.params)  # nothing is random


def test_the_lengths_of_both_halves_of_a_pooling_are_one():
    x = np.random.default_rng(0).standard_normal((60, 1024)) * np.repeat([1.0, 7.0], 512) + 5
    chunk = [functools.partial(Chunk, x[:20], np.zeros(20)), functools.partial(Chunk, x[20:], np.ones(40))]
    for pool, parts in (("avg+max", 2), ("none", 1)):
        scaling = rows.common_scaling(chunk, pool)
        scaled = ((x - scaling.mean) / scaling.deviation).reshape(60, parts, -1)
        np.testing.assert_allclose((scaled**2).sum(axis=2).mean(axis=0), np.full(parts, 1 / parts), rtol=1e-5)
        assert len(np.unique(scaling.deviation)) == parts
    constant = rows.common_scaling([functools.partial(Chunk, np.ones((5, 4)), np.ones(5))], "none")
    assert constant.deviation.tolist() == [[1, 1, 1, 1]]


def test_what_cannot_be_fitted_exactly_is_trained_by_adam_and_said(tmp_path):
    make_cache(tmp_path / "features", rows=120)
    fitted = training.train(tmp_path / "features", pool="avg", head="linear", resident_gib=1e-9)
    assert (fitted.recipe["solver"], list(fitted.params)) == ("adam", ["output"])
    assert "cannot be fitted exactly" in fitted.notes[0]


# Steps


def test_few_rows_are_passed_over_until_an_epoch_has_its_steps():
    """The learning rate decays once an epoch however many passes it has, and the steps are Adam's: counted by its state."""
    recipe = Recipe(hidden=(), dropout=0.0, batch_size=32, epochs=2, min_steps=20, learning_rate=0.01)
    by_steps = fitting.fit(recipe, loaders(70), loaders(40, 1), UNSCALED, 0)
    assert [epoch.learning_rate for epoch in by_steps.history] == pytest.approx([0.01, 0.009])
    once = fitting.fit(dataclasses.replace(recipe, min_steps=1), loaders(70), loaders(40, 1), UNSCALED, 0)
    assert by_steps.history[0].train_loss < once.history[0].train_loss
    many = fitting.fit(dataclasses.replace(recipe, min_steps=3), loaders(70), loaders(40, 1), UNSCALED, 0)
    assert many.history == once.history  # 70 rows are 3 steps already


@pytest.mark.parametrize(("preset", "count"), [("default", 15_000), ("reference", 15_000), ("default", 30_000)])
def test_an_epoch_of_the_photos_that_the_presets_were_tuned_on_is_one_pass(preset, count):
    recipe = PRESETS[preset]
    assert -(-count // recipe.batch_size) >= recipe.min_steps


# Balanced classes


def test_balanced_classes_weigh_alike_in_both_solvers_and_streamed():
    train_rows, streamed = (loaders(220, 0, parts, positive=0.1) for parts in (1, 3))
    labels = np.concatenate([load().y for load in train_rows])
    weights = rows.class_weights(train_rows)
    np.testing.assert_allclose(weights, len(labels) / (2 * np.bincount(labels.astype(int))), rtol=1e-6)
    np.testing.assert_array_equal(weights, rows.class_weights(streamed))
    l2 = 0.01
    recipe = Recipe(
        hidden=(), dropout=0.0, l2=l2, class_weight="balanced", learning_rate=0.05, epochs=30, batch_size=512
    )
    x, y = clouds(220, positive=0.1)
    x = x.astype(np.float64)
    model = LogisticRegression(C=1 / (2 * l2 * 220), class_weight="balanced", tol=1e-10, max_iter=10_000).fit(x, y)
    expected = model.decision_function(x)
    (exact,) = fitting.fit_exactly([dataclasses.replace(recipe, solver="newton")], train_rows, train_rows, UNSCALED)
    for fit in (exact, fitting.fit(recipe, train_rows, train_rows, UNSCALED, 0)):
        found = fitting.logits(fit.params, train_rows, UNSCALED)[0]
        np.testing.assert_allclose(
            found, expected, atol=1e-4 if fit is exact else 0.4
        )  # Adam keeps the epoch of the lowest loss
    losses = np.logaddexp(0, np.where(y > 0, -expected, expected))
    weighed = (losses[y > 0].mean() + losses[y == 0].mean()) / 2
    assert exact.best.validation_loss == pytest.approx(weighed, rel=1e-3)
    by_parts = fitting.fit(dataclasses.replace(recipe, batch_size=64), streamed, train_rows, UNSCALED, 0)
    np.testing.assert_allclose(fitting.logits(by_parts.params, train_rows, UNSCALED)[0], expected, atol=0.6)


def test_the_weighed_objective_is_a_mean_over_rows():
    x, y = clouds(30, positive=0.2)
    params = jax.tree.map(
        lambda array: array[0], steps.initial(jax.random.key(0), 12, steps.Shape((), 30, 1), 1).params
    )
    one = jax.tree.map(lambda column: column[0], steps.hypers([Recipe(hidden=(), l2=0.0, dropout=0.0)]))
    weight = np.where(y > 0, 3.0, 0.5).astype(np.float32)
    found, total = steps.objective(params, x, y, weight, jax.random.key(0), one)
    layer = params["output"]
    logits = (x @ np.asarray(layer["kernel"]))[:, 0] + float(layer["bias"][0])
    expected = (np.logaddexp(0, np.where(y > 0, -logits, logits)) * weight).sum()
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert float(found) == pytest.approx(expected / 30, rel=1e-5)


# Sweeps


def test_linear_heads_of_a_sweep_are_fitted_together_as_alone():
    base = training.resolve("default", "linear", {"pool": "none"}, rows=150)
    recipes = [dataclasses.replace(base, l2=l2) for l2 in (1e-5, 1e-3, 1e-1)]
    parts = {"train": loaders(150), "validation": loaders(60, 1)}
    found = search.search(recipes, lambda split, _: parts[split], 0)
    assert [result.fit.best.validation_loss for result in found] == sorted(r.fit.best.validation_loss for r in found)
    for result in found:
        alone = search.fit_one(result.recipe, lambda split, _: parts[split], 0)
        np.testing.assert_allclose(
            result.fit.params["output"]["kernel"], alone.fit.params["output"]["kernel"], rtol=1e-5
        )


# What is said of the end


def falling(*losses: float) -> tuple[Epoch, ...]:
    return tuple(Epoch(i, 0.1, loss, loss, 0.9) for i, loss in enumerate(losses, 1))


@pytest.mark.parametrize(
    ("losses", "epochs", "told"),
    [
        ((0.5, 0.4, 0.3), 3, True),
        ((0.5, 0.4, 0.3), 9, False),  # it was stopped early, by patience
        ((0.5, 0.3, 0.3001), 3, False),
        ((0.300, 0.2995, 0.299), 3, False),
        ((0.9, 0.300, 0.2995, 0.299, 0.2985), 5, False),  # it fell long ago
        ((0.5,), 1, False),
    ],
)
def test_a_head_that_still_improves_at_the_last_epoch_is_warned_of(losses, epochs, told):
    recipe = Recipe(epochs=epochs, patience=3)
    found = training.stopping_warnings(recipe, falling(*losses))
    assert bool(found) is told
    assert all(
        "still falling at the last epoch, 3, by 40 %" in one.replace("%", " %") and "--epochs" in one for one in found
    )


def test_the_warning_reaches_python_and_the_command_line(tmp_path, capsys):
    make_cache(tmp_path / "features")
    fitted = train.train(config(tmp_path, epochs=3, learning_rate=1e-4))
    assert "still falling at the last epoch, 3" in fitted.warnings[0]
    shown = " ".join(capsys.readouterr().out.split())
    assert "trained 3 epochs; kept epoch 3, the last, which was the best" in shown
    assert "still falling at the last epoch" in shown
    assert fitted.pool == Pool.AVG
