"""Cross-validated heads against scikit-learn's, folds that divide no group, and what is refused."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.model_selection
from helpers.caches import config, make_cache

import catdog_jax as cd
from catdog_jax import cli
from catdog_jax.commands import train
from catdog_jax.config import EXACT_L2
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.evaluation import run_files
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import atomic
from catdog_jax.heads import cross_validation, head, training
from catdog_jax.heads.run_directory import RunDirectory

pytestmark = pytest.mark.lenient_types


def clouds(photos: int = 60, columns: int = 12, views: int = 1, seed: int = 0) -> cross_validation.Photos:
    rng = np.random.default_rng(seed)
    labels = (np.arange(photos) % 3 == 0).astype(np.int64)
    x = rng.normal(size=(photos, 1, columns)) + labels[:, None, None] * (np.arange(columns) < 4)
    x = x + 0.1 * rng.normal(size=(photos, views, columns))
    return cross_validation.Photos(
        [f"row {row}" for row in range(photos)], x.astype(np.float32), labels, np.arange(photos), ("cats", "dogs")
    )


def scaled(photos: cross_validation.Photos) -> np.ndarray:
    """The features centred by column, with rows of length 1 on average, float64 [N, views, columns]."""
    x = photos.x.astype(np.float64)
    x = x - x.mean(axis=(0, 1))
    return x / np.sqrt((x**2).sum(axis=2).mean())


def fitted_by_scikit_learn(
    x: np.ndarray, labels: np.ndarray, l2: float, **options
) -> sklearn.linear_model.LogisticRegression:
    """scikit-learn sums the losses and halves the squares."""
    c = 1 / (2 * l2 * len(x))
    return sklearn.linear_model.LogisticRegression(C=c, max_iter=5000, tol=1e-10, **options).fit(x, labels)


@pytest.mark.parametrize("balanced", [False, True])
def test_logits_are_those_of_scikit_learns_cross_val_predict(balanced):
    photos = clouds()
    found = cross_validation.fit(photos, None, balanced, folds=5, repeats=3, seed=7)
    x, expected = scaled(photos)[:, 0], []
    for repeat in range(3):
        splitter = sklearn.model_selection.StratifiedKFold(5, shuffle=True, random_state=7 + repeat)
        # 60 photos in 5 folds: each trains on 48 rows
        model = sklearn.linear_model.LogisticRegression(
            C=1 / (2 * EXACT_L2), max_iter=5000, tol=1e-10, class_weight="balanced" if balanced else None
        )
        expected.append(
            sklearn.model_selection.cross_val_predict(model, x, photos.labels, cv=splitter, method="decision_function")
        )
    np.testing.assert_allclose(found.logits, np.mean(expected, axis=0), atol=1e-4)
    kept = fitted_by_scikit_learn(x, photos.labels, EXACT_L2 / 60, class_weight="balanced" if balanced else None)
    np.testing.assert_allclose(found.params["output"]["kernel"][:, 0], kept.coef_[0], atol=1e-4)
    np.testing.assert_allclose(found.params["output"]["bias"], kept.intercept_, atol=1e-4)


def test_views_are_trained_on_and_held_out_with_their_photo():
    photos = clouds(photos=40, views=2)
    found = cross_validation.fit(photos, 0.01, False, folds=4, repeats=1, seed=0)
    x, expected = scaled(photos), np.zeros(40)
    for fold in range(4):
        out = found.folds[0] == fold
        rows = x[~out].reshape(-1, x.shape[2])
        model = fitted_by_scikit_learn(rows, np.repeat(photos.labels[~out], 2), 0.01)
        expected[out] = model.decision_function(x[out, 0])
    np.testing.assert_allclose(found.logits, expected, atol=1e-4)


def test_folds_are_stratified_come_from_the_seed_and_divide_no_group():
    photos = clouds(photos=90)
    folds = cross_validation.assign(photos, 5, 2, seed=3)
    assert (folds == cross_validation.assign(photos, 5, 2, seed=3)).all()
    assert (folds != cross_validation.assign(photos, 5, 2, seed=9)).any()
    assert (folds[0] != folds[1]).any()
    for row in folds:
        assert [np.bincount(row[photos.labels == label]).tolist() for label in (0, 1)] == [[12] * 5, [6] * 5]
    groups = np.arange(90) // 4
    for row in cross_validation.assign(photos._replace(groups=groups), 5, 3, seed=0):
        assert all(len(set(row[groups == group])) == 1 for group in groups)
        assert set(row) == set(range(5))


def test_names_bytes_and_near_copies_are_grouped_and_chains_join():
    rng = np.random.default_rng(0)
    look = rng.gamma(0.5, 1, (12, 512)).astype(np.float32)
    look[7] = look[5] * 1.02 + 0.01 * rng.normal(size=512)  # a near copy of one class
    look[4] = look[3]  # of both classes: their features do not tell
    labels = np.arange(12) % 2
    names = ["Tom", None, "Tom", *[None] * 9]
    hashes = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "f", "k", "b"]
    found = cross_validation.grouped(labels, names, hashes, look)
    groups = {frozenset(np.flatnonzero(found == group).tolist()) for group in found}
    assert {group for group in groups if len(group) > 1} == {
        frozenset({0, 2}),
        frozenset({5, 7, 9}),
        frozenset({1, 11}),
    }


def test_photos_of_one_kind_are_no_copies_of_each_other():
    """Whatever a class has in common, two photos that share no more than that are two."""
    rng = np.random.default_rng(0)
    common = rng.gamma(0.5, 1, 512)
    for photos in (3, 5, 40):
        look = (common + 0.1 * rng.normal(size=(photos, 512))).astype(np.float32)
        assert (
            len(set(cross_validation.grouped(np.zeros(photos, int), [None] * photos, [None] * photos, look))) == photos
        )


@pytest.mark.parametrize(
    ("folds", "groups", "message"),
    [
        (8, None, "--folds: expected 2 to 7 for the 7 photos of 'dogs', found 8. Choose one of these, or add photos."),
        (1, None, "--folds: expected 2 to 7 for the 7 photos of 'dogs', found 1."),
        (5, "pairs", "the 7 photos of 'dogs', which are 4 groups of photos that belong together, found 5"),
        (2, "one", "--folds: expected 2 or more photos of each class that do not belong together, found the 7 photos of "
         "'dogs', which are 1 group of photos that belong together. Add other photos of 'dogs'."),
    ],
)  # fmt: skip
def test_folds_that_cannot_be_made_are_refused(folds, groups, message):
    x, labels = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) >= 13
    named = {"pairs": [f"pair {row // 2}" for row in range(20)], "one": ["same" if label else None for label in labels]}
    with pytest.raises(UsageError) as error:
        cd.train((x, labels), folds=folds, groups=named.get(groups), classes=("cats", "dogs"))
    assert message.replace("--folds", "folds") in str(error.value)


def test_folds_that_leave_a_class_out_of_the_rows_that_train_are_refused(monkeypatch):
    photos = clouds(photos=30)
    bad = [(np.flatnonzero(photos.labels == 0), np.flatnonzero(photos.labels == 1)), (np.array([0]), np.arange(1, 30))]
    monkeypatch.setattr(sklearn.model_selection.StratifiedKFold, "split", lambda *_: bad)
    with pytest.raises(UsageError, match="expected photos of both classes outside of each fold, found all of"):
        cross_validation.assign(photos, 2, 1, 0)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"head": "mlp"}, "head mlp"),
        ({"hidden": (8,)}, "hidden"),
        ({"sweep": 4}, "sweep"),
        ({"preset": "reference"}, "preset reference"),
        ({"epochs": 4}, "epochs"),
        ({"validation": ([[0.0], [1.0]], [0, 1])}, "validation"),
        ({"groups": ["a"]}, "expected one for each of 20 rows, found 1"),
    ],
)
def test_what_folds_cannot_do_is_refused(options, found):
    x, labels = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 2
    with pytest.raises(UsageError, match=found):
        cd.train((x, labels), folds=4, **options)


def test_arrays_are_cross_validated_and_judged():
    photos = clouds(photos=45)
    pair = photos.x[:, 0], photos.labels
    fitted = cd.train(pair, folds=3, repeats=2, seed=1)
    judged = fitted.out_of_fold
    assert judged.ids[:2] == ["row 0", "row 1"]
    assert judged.folds.shape == (2, 45)
    assert {name: fitted.recipe[name] for name in ("folds", "repeats", "calibration_photos", "solver")} == {
        "folds": 3, "repeats": 2, "calibration_photos": 45, "solver": "newton",
    }  # fmt: skip
    expected = cross_validation.fit(photos, None, True, 3, 2, 1).logits / fitted.recipe["temperature"]
    np.testing.assert_allclose(np.log(judged.probabilities / (1 - judged.probabilities)), expected, atol=1e-9)
    result = cd.evaluate(fitted, pair, split="folds", bootstrap=20)
    assert result.n == 45
    assert result.metrics["accuracy"].value == pytest.approx(((judged.probabilities >= 0.5) == photos.labels).mean())
    assert "45 cross-validated photos" in repr(result)
    assert "each judged by heads that had not seen it: 3 folds, 2 times" in result.report()
    with pytest.raises(CatdogError, match="expected the 45 photos of the cross-validation, found 40"):
        cd.evaluate(fitted, (pair[0][:40], pair[1][:40]), split="folds")
    with pytest.raises(CatdogError, match="expected a head that was cross-validated"):
        cd.evaluate(dataclasses.replace(fitted, out_of_fold=None), pair, split="folds")


def test_a_run_holds_its_cross_validation_and_verify_checks_it(tmp_path, capsys):
    cache = make_cache(tmp_path / "features", views=2)
    settings = config(tmp_path, epochs=None, hidden=None, folds=4, repeats=2)
    fitted = train.train(settings)
    run = RunDirectory(tmp_path / "run")
    rows = list(csv.DictReader(run.out_of_fold.read_text().splitlines()))
    assert [row["id"] for row in rows] == cache.ids("train") + cache.ids("validation")  # those of test stay unseen
    assert list(rows[0]) == ["id", "label", "fold_1", "fold_2", "probability"]
    described = json.loads(run.settings.read_text())
    assert (described["folds"], described["repeats"]) == (4, 2)
    assert described["files"][run.out_of_fold.name] == atomic.sha256_of_file(run.out_of_fold)
    assert "420 photos, each judged by heads that had not seen it: 4 folds, 2 times" in capsys.readouterr().out
    read = run_files.read_out_of_fold(run, head.load(run.head))
    assert (read.probabilities == fitted.out_of_fold.probabilities).all()
    assert (read.folds == fitted.out_of_fold.folds).all()
    assert (read.labels == fitted.out_of_fold.labels).all()
    before = run.out_of_fold.read_bytes()
    train.train(settings)
    assert run.out_of_fold.read_bytes() == before

    assert cli.main(["evaluate", "--run", str(run.path), "--split", "folds", "--bootstrap", "20"]) == 0
    measured = json.loads(run.metrics("folds").read_text())
    assert (measured["split"], measured["n"]) == ("folds", 420)
    assert run.report("folds").exists()
    assert cli.main(["verify", str(run.path)]) == 0
    run.out_of_fold.write_text(run.out_of_fold.read_text().replace("cats", "dogs", 1))
    capsys.readouterr()
    assert cli.main(["verify", str(run.path)]) == 1
    assert "out-of-fold.csv" in capsys.readouterr().out
    assert cli.main(["evaluate", "--run", str(run.path), "--split", "folds"]) == 1
    assert "found: other bytes than `catdog train` wrote. Run `catdog train` again." in capsys.readouterr().err
    train.train(config(tmp_path, epochs=1))  # another head, without folds
    assert not run.out_of_fold.exists()
    assert not run.metrics("folds").exists()


def test_a_cache_without_validation_photos_needs_folds(tmp_path):
    cache = make_cache(tmp_path / "features")
    splits = cache.manifest["splits"] | {
        split: {"rows": 0, "skipped": [], "shards": []} for split in ("validation", "test")
    }
    undivided = FeatureCache(cache.path, cache.manifest | {"splits": splits})
    with pytest.raises(UsageError, match=r"which has no validation photos, found none\. Give --folds 5"):
        training.train(undivided)
    fitted = training.train(undivided, folds=5, repeats=1)
    assert len(fitted.out_of_fold.ids) == 300
    with pytest.raises(CatdogError, match="expected test photos, found none; it has train"):
        cd.evaluate(fitted, undivided)


def test_groups_of_a_cache_stay_together(tmp_path):
    cache = make_cache(tmp_path / "features")
    name = cache.shard_names("train")[0]
    sidecar = cache.sidecar(name)
    assert cache.groups("train") == [None] * 300
    assert cache.hashes("train")[:2] == sidecar["source_sha256"][:2]
