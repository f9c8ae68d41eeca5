"""What tells photos of neither class: against scikit-learn and SciPy in float64, in training, and in a head's file."""

import dataclasses
import json
import re

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

import catdog_jax as cd
from catdog_jax.backbone.pooling import Pool
from catdog_jax.errors import CatdogError
from catdog_jax.heads import head, strangeness


def rows(count: int, seed: int = 0, kinds: int = 6) -> np.ndarray:
    """Features that lie near a space of few directions, as those of like photos do; float32 [count, 512]."""
    directions = np.random.default_rng(9).gamma(0.5, 1, (kinds, 512))
    rng = np.random.default_rng(seed)
    return (rng.gamma(1.0, 1, (count, kinds)) @ directions + rng.gamma(0.5, 0.2, (count, 512))).astype(np.float32)


def labels(count: int) -> np.ndarray:
    return np.arange(count) % 2


def test_it_is_the_error_of_a_reconstruction_by_principal_components():
    x, others = rows(300), np.abs(np.random.default_rng(5).normal(size=(20, 512)))
    found = strangeness.fit([x])
    pca = PCA(strangeness.RANK, svd_solver="full").fit(normalize(x.astype(np.float64)))
    for given in (x, others, 1000 * others):
        unit = normalize(given.astype(np.float64))
        expected = ((unit - pca.inverse_transform(pca.transform(unit))) ** 2).sum(axis=1)
        np.testing.assert_allclose(found(given), expected, atol=1e-6)
    assert found(others).min() > found(x).max()


def test_chunks_give_what_the_whole_gives_and_nothing_has_a_length():
    x = rows(200)
    whole, parts = strangeness.fit([x]), strangeness.fit([x[:30], x[30:]])
    np.testing.assert_allclose(parts.basis, whole.basis, atol=1e-5)
    assert strangeness.fit([x]).sha256 == whole.sha256
    assert np.isfinite(whole(np.zeros((1, 512)))).all()


@pytest.mark.parametrize("n", [100, 198, 199, 2000])
def test_the_level_is_the_lowest_that_accepts_99_percent_on_average(n):
    """Of uniform values, the share below is the level, and the k-th of n is k / (n + 1) on average."""
    values = np.random.default_rng(n).permutation(n) / n
    found = strangeness.level(values)
    k = round(found.above * n) + 1
    assert k / (n + 1) >= 0.99 > (k - 1) / (n + 1)
    assert found.photos == n
    assert found.above >= np.quantile(values, 0.99)
    # At least `accepts`: the k-th lies below it where k or more of n do
    assert stats.binom.sf(k - 1, n, found.accepts) == pytest.approx(0.05)


def test_of_fewer_it_is_the_highest():
    found = strangeness.level(np.arange(50))
    assert (found.above, found.accepts) == (49, pytest.approx(0.05 ** (1 / 50)))


@pytest.mark.parametrize("n", [100, 600])
def test_it_accepts_what_it_promises(n):
    rng = np.random.default_rng(3)
    levels = [strangeness.level(rng.random(n)) for _ in range(2000)]
    assert 0.989 < np.mean([one.above for one in levels]) < 0.993
    assert 0.935 < np.mean([one.above >= one.accepts for one in levels]) < 0.965


def test_what_is_seen_are_averages_or_else_maxima():
    cells = np.random.default_rng(1).random((3, *Pool.NONE.shape(7))).astype(np.float32)
    for pool in Pool:
        x = pool.apply(cells).reshape(3, -1)
        expected = cells.max(axis=(1, 2)) if pool is Pool.MAX else cells.mean(axis=(1, 2))
        np.testing.assert_allclose(strangeness.seen(x, pool), expected, rtol=1e-6)


# Training


def test_a_training_fits_it_and_chooses_the_level_on_validation_rows():
    train, unseen = rows(200, 1), rows(150, 2)
    fitted = cd.train((train, labels(200)), validation=(unseen, labels(150)), head="linear", pool="avg")
    assert fitted.strangeness is not None
    values = strangeness.fit([train])(unseen)
    assert fitted.recipe["strange_above"] == pytest.approx(np.sort(values)[149])
    assert (fitted.recipe["strange_photos"], fitted.notes) == (150, ())
    np.testing.assert_allclose(fitted.strange(unseen), values)


def test_folds_choose_the_level_on_photos_that_were_held_out():
    x = rows(160, 1)
    fitted = cd.train((x, labels(160)), folds=4, repeats=1, pool="avg")
    folds = fitted.out_of_fold.folds[0]
    held = np.concatenate([strangeness.fit([x[folds != fold]])(x[folds == fold]) for fold in range(4)])
    assert fitted.recipe["strange_above"] == pytest.approx(held.max())  # 160 / 161 is the first above 0.99
    assert fitted.recipe["strange_photos"] == 160
    assert held.max() > fitted.strangeness(x).max()  # it was fitted to all of them


@pytest.mark.parametrize("folds", [None, 4])
def test_too_few_rows_leave_it_out_and_a_note_says_so(folds):
    fitted = cd.train((rows(90), labels(90)), head="linear", folds=folds, repeats=1, pool="avg")
    assert fitted.strangeness is None
    assert fitted.strange(rows(2)) is None
    assert "strange_above" not in fitted.recipe
    numbers = r"\d\d and 90" if folds else "82 and 8"
    (note,) = (note for note in fitted.notes if "strangeness" in note)
    assert re.search(f"there are {numbers}: the model will not tell photos of neither class", note)


def test_columns_of_other_origin_have_none():
    fitted = cd.train((rows(200), labels(200)), validation=(rows(150, 1), labels(150)), head="linear")
    assert fitted.strangeness is None
    assert not any("strangeness" in note for note in fitted.notes)


def test_an_evaluation_counts_the_photos_that_are_called_neither():
    fitted = trained()
    unseen = np.concatenate([rows(60, 4), np.abs(np.random.default_rng(5).normal(size=(4, 512)))])
    told = cd.evaluate(fitted, (unseen, labels(64)), bootstrap=20)
    expected = int((fitted.strangeness(unseen) > fitted.recipe["strange_above"]).sum())
    assert told.strangers["count"] == told.to_json()["neither"]["count"] == expected >= 4
    assert told.strangers["low"] < expected / 64 < told.strangers["high"]
    assert f"{expected} of 64" in told.report()
    old = dataclasses.replace(fitted, strangeness=None, recipe={})
    assert "neither" not in cd.evaluate(old, (unseen, labels(64)), bootstrap=20).to_json()


# The file


def trained() -> head.FittedHead:
    arrays = (rows(200, 1), labels(200))
    return cd.train(arrays, validation=(rows(150, 2), labels(150)), head="linear", pool="avg")


def test_it_survives_the_file(tmp_path):
    fitted = trained()
    fitted.save(tmp_path / "head.safetensors")
    found = head.load(tmp_path / "head.safetensors")
    assert found.strangeness.sha256 == fitted.strangeness.sha256
    assert json.dumps(found.recipe, sort_keys=True) == json.dumps(fitted.recipe, sort_keys=True)
    np.testing.assert_array_equal(found.strange(rows(3)), fitted.strange(rows(3)))


def test_a_file_without_it_is_as_those_of_before(tmp_path):
    fitted = trained()
    recipe = {name: value for name, value in fitted.recipe.items() if not name.startswith("strange")}
    dataclasses.replace(fitted, strangeness=None, recipe=recipe).save(tmp_path / "head.safetensors")
    with safetensors.safe_open(tmp_path / "head.safetensors", "numpy") as file:
        assert "strange" not in json.dumps([*file.keys(), file.metadata()])
    assert head.load(tmp_path / "head.safetensors").strangeness is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told, tensors: tensors["strangeness/mean"].__setitem__(0, 1), "altered tensors of the strangeness"),
        (lambda told, tensors: tensors.pop("strangeness/basis"), "strangeness/basis"),
        (lambda told, tensors: tensors.update({"strangeness/mean": np.zeros(7, np.float32)}), "expected 512 rows"),
        (lambda told, tensors: told["recipe"].update(strange_above=-1), "strange_above -1, expected a finite number"),
        (lambda told, tensors: told["recipe"].update(strange_above="much"), "strange_above 'much', expected a finite"),
        (lambda told, tensors: told["recipe"].pop("strange_above"), "strange_above None, expected a finite number"),
        (lambda told, tensors: told.pop("strangeness_sha256"), "altered tensors of the strangeness"),
    ],
)
def test_a_damaged_one_is_an_error(tmp_path, change, message):
    path = tmp_path / "head.safetensors"
    trained().save(path)
    with safetensors.safe_open(path, "numpy") as file:
        told = json.loads(file.metadata()["head"])
        tensors = {name: file.get_tensor(name).copy() for name in file.keys()}  # noqa: SIM118
    change(told, tensors)
    path.write_bytes(safetensors.numpy.save(tensors, {"head": json.dumps(told)}))
    with pytest.raises(CatdogError, match=f"expected a head of `catdog train`, found: .*{message}"):
        head.load(path)
