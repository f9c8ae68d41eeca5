"""Training on made features: against NumPy in float64, against Keras' semantics, and on its files."""

import csv
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.caches import config, make_cache
from PIL import Image

from catdog_jax.backbone.pooling import Pool
from catdog_jax.commands import train
from catdog_jax.config import PRESETS, Recipe
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.heads import fitting, head, merging, rows, search, steps, training

pytestmark = pytest.mark.lenient_types


def history(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "history.csv").read_text().splitlines()))


def uncalibrated_loss(fitted: head.FittedHead, p: np.ndarray, y: np.ndarray) -> float:
    """The log loss before the temperature divided the logits, as the history has it."""
    logits = np.log(p / (1 - p)) * fitted.recipe["temperature"]
    return float(np.logaddexp(0, np.where(y == 1, -logits, logits)).mean())


def test_it_learns_and_keeps_the_best_epoch(tmp_path):
    found = make_cache(tmp_path / "features")
    fitted = train.train(config(tmp_path, epochs=20, learning_rate=0.01))
    loaded = head.load(tmp_path / "run" / "head.safetensors")
    x, y = found.load("validation", "avg")[:, 0], found.labels("validation")
    p = head.probabilities(loaded.params, x)
    assert ((p > 0.5) == y).mean() > 0.9
    epochs = history(tmp_path / "run")
    losses = [float(row["validation_loss"]) for row in epochs]
    assert min(losses) == pytest.approx(uncalibrated_loss(fitted, p, y), rel=1e-3)
    best = epochs[int(np.argmin(losses))]
    assert float(best["validation_accuracy"]) == pytest.approx(((p > 0.5) == y).mean())
    assert fitted.classes == ("cats", "dogs")
    assert fitted.fingerprint == found.fingerprint
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    assert settings["features"] == "../features"
    assert settings["recipe"]["hidden"] == [16]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    make_cache(tmp_path / "features")
    files = {}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train.train(config(tmp_path, out=tmp_path / name, seed=seed))
        files[name] = (
            (tmp_path / name / "head.safetensors").read_bytes(),
            (tmp_path / name / "history.csv").read_bytes(),
        )
    assert files["a"] == files["b"]
    assert files["a"][0] != files["c"][0]


def test_streaming_shards_learns_what_residence_learns(tmp_path):
    found = make_cache(tmp_path / "features", rows=330)
    resident, streamed = (rows.of_cache(found, gib).load("train", Pool.AVG) for gib in (1.0, 1e-9))
    assert (len(resident), len(streamed)) == (1, 4)
    np.testing.assert_array_equal(np.concatenate([load().x for load in streamed]), resident[0]().x)
    np.testing.assert_allclose(rows.measure(streamed).mean, rows.measure(resident).mean, rtol=1e-6)
    accuracies = []
    for gib in (1.0, 1e-9):
        fitted = train.train(config(tmp_path, out=tmp_path / str(gib), resident_gib=gib, learning_rate=0.01, epochs=15))
        p = head.probabilities(fitted.params, found.load("validation", "avg")[:, 0])
        accuracies.append(((p > 0.5) == found.labels("validation")).mean())
    assert min(accuracies) > 0.88


def test_views_are_rows_for_training_and_the_first_is_judged(tmp_path):
    found = make_cache(tmp_path / "features", views=2)
    trained, judged = (rows.of_cache(found, 1.0).load(split, Pool.AVG)[0]() for split in ("train", "validation"))
    stored = found.load("train", "avg")
    assert trained.x.shape == (600, 512)
    np.testing.assert_array_equal(trained.x[1::2], stored[:, 1])
    np.testing.assert_array_equal(trained.y, np.repeat(found.labels("train"), 2))
    np.testing.assert_array_equal(judged.x, found.load("validation", "avg")[:, 0])


def test_scaling_is_that_of_numpy(tmp_path):
    found = make_cache(tmp_path / "features")
    scaling = rows.measure(rows.of_cache(found, 1.0).load("train", Pool.AVG))
    x = found.load("train", "avg")[:, 0].astype(np.float64)
    np.testing.assert_allclose(scaling.mean[0], x.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(scaling.deviation[0], x.std(axis=0), rtol=1e-5)
    constant = [lambda: rows.Chunk(np.full((10, 4), 2.5, np.float16), np.zeros(10))]
    assert rows.measure(constant).deviation.tolist() == [[1, 1, 1, 1]]


def random_params(rng) -> dict:
    return {
        "dense_0": {
            "kernel": rng.standard_normal((6, 4)).astype(np.float32),
            "bias": rng.standard_normal(4).astype(np.float32),
        },
        "output": {
            "kernel": rng.standard_normal((4, 1)).astype(np.float32),
            "bias": rng.standard_normal(1).astype(np.float32),
        },
    }


def test_the_objective_is_log_loss_plus_keras_penalty():
    """Against Keras itself: the loss of a model with kernel_regularizer=l2, and against NumPy with padding masked."""
    keras = pytest.importorskip("keras")
    rng = np.random.default_rng(0)
    params = random_params(rng)
    x, y = rng.standard_normal((5, 6)).astype(np.float32), np.array([0, 1, 1, 0, 1], np.float32)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(4, "relu", kernel_regularizer=keras.regularizers.L2(0.05)),
            keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.05)),
        ]
    )
    model.set_weights([layer[part] for layer in params.values() for part in ("kernel", "bias")])
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    with jax.numpy_rank_promotion("allow"):
        expected = model.evaluate(x, y[:, None], verbose=0)
    recipe = Recipe(hidden=(4,), l2=0.05, dropout=0.0)
    one = jax.tree.map(lambda column: column[0], steps.hypers([recipe]))
    padded_x, padded_y = (
        np.concatenate([x, np.full((3, 6), 9, np.float32)]),
        np.concatenate([y, np.ones(3, np.float32)]),
    )
    weight = np.array([1] * 5 + [0] * 3, np.float32)
    found, total = steps.objective(params, padded_x, padded_y, weight, jax.random.key(0), one)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    hidden = np.maximum(x.astype(np.float64) @ params["dense_0"]["kernel"] + params["dense_0"]["bias"], 0)
    logits = (hidden @ params["output"]["kernel"] + params["output"]["bias"])[:, 0]
    assert float(total) == pytest.approx(np.logaddexp(0, np.where(y > 0, -logits, logits)).sum(), rel=1e-5)


def test_one_epoch_of_adam_is_that_of_the_paper(tmp_path):
    """Kingma & Ba's update in float64, full batches, with the rate decaying exponentially and the penalty in the gradient."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((8, 6)).astype(np.float32), rng.integers(0, 2, 8).astype(np.float32)
    recipe = Recipe(
        hidden=(),
        l2=0.1,
        dropout=0.0,
        learning_rate=0.05,
        decay_rate=0.5,
        decay_epochs=1.0,
        batch_size=8,
        epochs=4,
        patience=9,
        min_steps=1,
    )
    chunk = [lambda: rows.Chunk(x, y)]
    identity = rows.UNSCALED
    result = fitting.fit(recipe, chunk, chunk, identity, seed=0)
    start = head.Head(()).init(jax.random.split(jax.random.key(0))[1], np.zeros((1, 6), np.float32))["params"]["output"]
    weights = np.concatenate([np.asarray(start["kernel"])[:, 0], np.asarray(start["bias"])]).astype(np.float64)
    first, second = np.zeros(7), np.zeros(7)
    inputs = np.concatenate([x, np.ones((8, 1))], axis=1)
    losses = []
    for step in range(1, 5):
        p = 1 / (1 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (p - y) / 8 + 2 * 0.1 * np.append(weights[:6], 0)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        rate = 0.05 * 0.5 ** (step - 1)
        weights = weights - rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        losses.append(np.logaddexp(0, np.where(y > 0, -1, 1) * (inputs @ weights)).mean())
    np.testing.assert_allclose([epoch.validation_loss for epoch in result.history], losses, rtol=1e-4)
    assert [epoch.learning_rate for epoch in result.history] == pytest.approx([0.05, 0.025, 0.0125, 0.00625])


def test_training_stops_when_validation_no_longer_improves(tmp_path):
    make_cache(tmp_path / "features", rows=40, noise=3.0)
    train.train(config(tmp_path, epochs=200, patience=3, learning_rate=0.02, dropout=0.0))
    losses = [float(row["validation_loss"]) for row in history(tmp_path / "run")]
    assert len(losses) < 200
    assert int(np.argmin(losses)) == len(losses) - 4


def test_results_of_another_head_are_removed(tmp_path):
    make_cache(tmp_path / "features")
    train.train(config(tmp_path))
    for name in ("metrics.json", "report-validation.html", "model.onnx", "notes.txt", "mine.onnx"):
        (tmp_path / "run" / name).write_text("x")
    train.train(config(tmp_path))
    assert (tmp_path / "run" / "metrics.json").exists()
    train.train(config(tmp_path, seed=9))
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"head.safetensors", "history.csv", "config.json", "notes.txt", "mine.onnx"}


def test_a_loss_that_leaves_the_numbers_is_an_error(tmp_path):
    make_cache(tmp_path / "features")
    with pytest.raises(CatdogError, match=r"epoch \d+: expected a finite loss.*Lower --learning-rate"):
        train.train(config(tmp_path, learning_rate=1e30, hidden=(16, 16, 16)))
    assert not (tmp_path / "run").exists()


def test_a_pooling_that_the_cache_lacks_is_an_error(tmp_path):
    make_cache(tmp_path / "features")
    with pytest.raises(CatdogError, match=r"features that give pool 'avg\+max', found 'avg'"):
        train.train(config(tmp_path, pool="avg+max"))


def test_a_preset_takes_the_pooling_that_there_is(tmp_path, capsys):
    make_cache(tmp_path / "features")
    fitted = train.train(config(tmp_path, pool=None, epochs=1))
    assert fitted.pool == fitted.recipe["pool"] == "avg"
    assert "holds avg features: training on these, not on avg+max" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.0}, r"--dropout: expected 0 to 0.999, found 1.0"),
        ({"l2": -1.0}, "--l2: expected 0 to inf"),
        ({"learning_rate": 0.0}, "--learning-rate: expected"),
        ({"batch_size": 0}, "--batch-size: expected 1"),
        ({"epochs": 0}, "--epochs"),
        ({"hidden": (0,)}, "--hidden: expected widths of 1 or more"),
        ({"sweep": 0}, "--sweep: expected 1 or more heads, found 0"),
        ({"head": "linear", "hidden": (3,)}, "--hidden: expected none with --head linear"),
    ],
)
def test_options_out_of_range_are_wrong_usage(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        training.train(np.zeros(0), **train.options(config(tmp_path, **options)))


def test_presets_give_way_to_options():
    assert training.resolve("default", None, {"l2": None}) == PRESETS["default"]
    reference = training.resolve("reference", None, {})
    assert (reference.pool, reference.l2, reference.standardise) == ("none", 0.05, False)
    changed = training.resolve("reference", "linear", {"l2": 0.0, "pool": "max"})
    assert (changed.pool, changed.l2, changed.hidden) == ("max", 0.0, ())


def test_a_sweep_keeps_the_best_of_all_and_shows_them(tmp_path, capsys):
    found = make_cache(tmp_path / "features")
    fitted = train.train(config(tmp_path, sweep=6, epochs=2, pool=None))
    swept = list(csv.DictReader((tmp_path / "run" / "sweep.csv").read_text().splitlines()))
    losses = [float(row["validation_log_loss"]) for row in swept]
    assert len(swept) == 6
    assert losses == sorted(losses)
    # What was asked for is among them
    assert any((row["hidden"], row["learning_rate"]) == ("16", "0.0005") for row in swept)
    p = head.probabilities(
        head.load(tmp_path / "run" / "head.safetensors").params, found.load("validation", fitted.pool)[:, 0]
    )
    y = found.labels("validation")
    assert uncalibrated_loss(fitted, p, y) == pytest.approx(losses[0], rel=1e-3)
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    assert str(settings["recipe"]["l2"]) == swept[0]["l2"]
    with Image.open(tmp_path / "run" / "sweep.png") as picture:
        assert picture.width > 1000
    shown, notes = capsys.readouterr()
    assert all(words in shown and words not in notes for words in ("the best heads", "trained", "kept epoch"))


def test_the_same_seed_draws_the_same_heads_and_linear_ones_drop_nothing():
    base = PRESETS["default"]
    drawn, again, other = (search.draw(base, ("avg",), 40, seed, lambda _: True, 300) for seed in (1, 1, 2))
    assert drawn == again != other
    assert drawn[0] == base
    linear = [recipe for recipe in drawn[1:] if not recipe.hidden]
    assert all((recipe.dropout, recipe.label_smoothing, recipe.solver) == (0, 0, "newton") for recipe in linear)
    assert all(4.9e-4 < 300 * recipe.l2 < 0.51 for recipe in linear)
    by_adam = search.draw(base, ("avg",), 40, 1, lambda _: False, 300)
    assert {recipe.solver for recipe in by_adam} == {"adam"}
    assert [one for one in by_adam if one.hidden] == [one for one in drawn if one.hidden]


def test_heads_are_grouped_by_shape_and_wide_ones_stay_alone_on_a_cpu():
    drawn = search.draw(PRESETS["default"], ("avg",), 40, 1, lambda _: True, 300)
    for together in (True, False):
        found = merging.groups(drawn, together, across=False)
        assert sorted(id(recipe) for group in found for recipe in group) == sorted(map(id, drawn))
        assert all(len({(len(recipe.hidden), recipe.solver, recipe.pool) for recipe in group}) == 1 for group in found)
        assert any(len(group) > 1 and group[0].hidden for group in found) is together
    alone = merging.groups(drawn, False, across=False)
    assert max(len(group) for group in alone if not group[0].hidden) > 1
