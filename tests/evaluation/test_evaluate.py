"""The evaluation stage on photos whose brightness is their class."""

import dataclasses
import html
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.metrics
from PIL import Image
from rich.console import Console

from catdog_jax.backbone import weights
from catdog_jax.backbone.pooling import Pool
from catdog_jax.commands import evaluate as evaluate_command
from catdog_jax.commands import evaluate_head, extract
from catdog_jax.config import EvaluateConfig, ExtractConfig
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.evaluation import evaluate, page, result, run_files
from catdog_jax.evaluation.result import Evaluation, Predicted
from catdog_jax.features import extractor
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import sealed
from catdog_jax.heads import head
from catdog_jax.photos import sources
from catdog_jax.photos.fingerprint import Fingerprint


def test_worst_mistakes_come_first_and_ties_are_in_the_order_of_ids():
    labels = np.array([0, 1, 1, 0, 1], np.int8)
    probabilities = np.array([0.9, 0.01, 0.9, 0.6, 0.1])
    found = evaluation(["e", "d", "c", "b", "a"], labels, probabilities).worst
    assert [one["id"] for one in found] == ["d", "a", "e", "b"]
    assert found[0] == {"id": "d", "label": "dogs", "prediction": "cats", "probability": 0.01}
    low = evaluation(["e", "d", "c", "b", "a"], labels, probabilities, {"threshold": 0.05}).worst
    assert [(one["id"], one["prediction"]) for one in low] == [("d", "cats"), ("e", "dogs"), ("b", "dogs")]
    many = evaluation([f"{i:02d}" for i in range(99)], np.zeros(99, int), np.linspace(0.5, 1, 99)).worst
    assert [one["id"] for one in many] == [f"{i:02d}" for i in range(98, 98 - result.WORST, -1)]


def evaluation(ids: list[str], labels: np.ndarray, probabilities: np.ndarray, recipe: dict | None = None) -> Evaluation:
    fitted = head.FittedHead(Pool.AVG, HEAD, ("cats", "dogs"), Fingerprint(), recipe or {})
    return Evaluation(head=fitted, predicted=Predicted("", ids, labels, probabilities[:, None], []), bootstrap=20)


def test_the_threshold_of_the_head_decides():
    labels, p = np.arange(300) % 10 == 0, np.linspace(0.01, 0.99, 300)
    found = evaluation([f"{i}" for i in range(300)], labels.astype(int), p, {"threshold": 0.8, "abstain_below": 0.3})
    written = found.to_json()
    assert written["threshold"] == 0.8
    assert written["confusion"] == sklearn.metrics.confusion_matrix(labels, p >= 0.8).tolist()
    assert written["metrics"]["balanced_accuracy"]["value"] == sklearn.metrics.balanced_accuracy_score(labels, p >= 0.8)
    assert written["baseline"] == {"class": "cats", "accuracy": 0.9}
    assert {one["prediction"] for one in found.worst if one["probability"] < 0.8} == {"cats"}
    kept = np.where(p >= 0.8, p, 1 - p) >= 0.3
    assert written["abstention"]["coverage"] == kept.mean()
    assert written["abstention"]["accuracy"] == ((p >= 0.8) == labels)[kept].mean()


def test_the_warnings_of_the_photos_the_calibration_and_the_training_are_together():
    labels = (np.arange(330) % 11 == 0).astype(int)
    recipe = {"abstain_below": None, "calibration_photos": 40, "warnings": ["Still improving."]}
    told = evaluation([f"{i}" for i in range(330)], labels, np.where(labels, 0.9, 0.1), recipe).warnings
    assert [one.split(":")[0] for one in told] == [
        "30 test photos of dogs",
        "10 test photos of cats for each of dogs",
        "No mistake among 330 test photos is suspiciously good",
        "40 validation photos calibrated the head",
        "Still improving.",
    ]
    assert "--class-weight balanced" in told[1]
    balanced = evaluation(["a"] * 330, labels, np.where(labels, 0.9, 0.1), recipe | {"class_weight": "balanced"})
    assert "--class-weight" not in balanced.warnings[1]


# ----------------------------------------------------------------------------------------------------
# the stage


class Brightness:
    """A stand-in for the convolutions: the first of 512 features is the brightness, a little more in the second view."""

    batch_size = 5
    precision = "float32"
    note, size = "", 224

    def __init__(self, pretrained, pool="avg", views=("original",), **_):
        self.views = len(views)

    def dispatch(self, photos: np.ndarray) -> np.ndarray:
        assert photos.shape == (self.batch_size, 224, 224, 3)
        rows = np.zeros((len(photos), self.views, 512), np.float32)
        rows[:, :, 0] = (photos.mean(axis=(1, 2, 3)) / 255 - 0.5)[:, None] + 0.125 * np.arange(self.views)
        return rows


# The last two are mistakes
GREYS = {"cats": [*range(10, 110, 10), 250, 140], "dogs": [*range(150, 250, 10), 20, 120]}
HEAD = {"output": {"kernel": np.eye(512, 1, dtype=np.float32) * 10, "bias": np.zeros(1, np.float32)}}
BROKEN = "test/cats/<script>alert(1)<.png"


def draw(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), grey).save(path)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory beside photos/ and features/: 24 test photos, four of them mistakes, and a broken one."""
    monkeypatch.setattr(extractor, "Extractor", Brightness)
    monkeypatch.setattr(weights, "load", lambda *_: SimpleNamespace(sha256="ab" * 32, mode="torch", params={}))
    for name, greys in GREYS.items():
        for split in ("train", "validation"):
            draw(tmp_path / "photos" / split / name / "one.png", greys[0])
        for grey in greys:
            draw(tmp_path / "photos" / "test" / name / f"{grey}.png", grey)
    (tmp_path / "photos" / BROKEN).write_bytes(b"no photo")
    config = ExtractConfig(
        data=str(tmp_path / "photos"),
        out=tmp_path / "features",
        views=("original", "mirror"),
        shard_size=10,
        batch_size=5,
    )
    cache = extract.extract(config)
    run = tmp_path / "run"
    head.FittedHead(Pool.AVG, HEAD, cache.classes, cache.fingerprint, {"l2": 0.5}).save(run / "head.safetensors")
    (run / "config.json").write_text(json.dumps({"features": str(tmp_path / "features")}))
    header = "epoch,learning_rate,train_loss,validation_loss,validation_accuracy"
    (run / "history.csv").write_text(f"{header}\n1,0.1,0.7,0.6,0.5\n2,0.1,0.5,0.4,0.9\n")
    return run


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that do not look at the page: drawing it takes a second."""
    monkeypatch.setattr(page, "render", lambda *_, **__: "")


def settings(run: Path, **changes) -> EvaluateConfig:
    return dataclasses.replace(EvaluateConfig(run=run, bootstrap=50), **changes)


def test_cached_features_are_judged_and_written_down(run: Path):
    result = evaluate_command.evaluate(settings(run))
    assert sealed.read_sealed_json(run / "metrics.json", "figures") == result
    assert (result["format"], result["split"], result["n"], result["classes"]) == (1, "test", 24, ["cats", "dogs"])
    assert result["confusion"] == [[10, 2], [2, 10]]
    assert result["metrics"]["accuracy"]["value"] == pytest.approx(20 / 24)
    assert result["metrics"]["accuracy"]["low"] < 20 / 24 < result["metrics"]["accuracy"]["high"]
    assert [one["id"] for one in result["worst"]] == [
        "test/cats/250.png",
        "test/dogs/20.png",
        "test/cats/140.png",
        "test/dogs/120.png",
    ]
    assert [one["id"] for one in result["skipped"]] == [BROKEN]
    assert "unknown content" in result["skipped"][0]["reason"]
    page = (run / "report.html").read_text()
    assert page.count('src="data:image/jpeg;base64,') == 4
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "best epoch: 2" in page


@pytest.mark.usefixtures("no_page")
def test_probabilities_are_averaged_over_views(run: Path):
    result = evaluate_command.evaluate(settings(run))
    original = {grey: 1 / (1 + np.exp(-10 * (grey / 255 - 0.5))) for greys in GREYS.values() for grey in greys}
    mirrored = {grey: 1 / (1 + np.exp(-10 * (grey / 255 - 0.375))) for grey in original}
    labels = [name == "dogs" for name, greys in GREYS.items() for _ in greys]
    means = [(original[grey] + mirrored[grey]) / 2 for greys in GREYS.values() for grey in greys]
    assert result["views_averaged"]["views"] == 2
    found = result["views_averaged"]["metrics"]
    # Float16
    assert found["brier"]["value"] == pytest.approx(sklearn.metrics.brier_score_loss(labels, means), abs=1e-3)
    assert found["brier"]["value"] != pytest.approx(result["metrics"]["brier"]["value"], abs=1e-3)


@pytest.mark.usefixtures("no_page")
def test_end_to_end_agrees_with_the_cache(run: Path):
    cached = evaluate_command.evaluate(settings(run))
    found = evaluate_command.evaluate(settings(run, data=str(run.parent / "photos")))
    assert (found["n"], found["confusion"]) == (cached["n"], cached["confusion"])
    assert [one["id"] for one in found["worst"]] == [one["id"] for one in cached["worst"]]
    assert found["skipped"] == cached["skipped"]
    assert found["metrics"]["brier"]["value"] == pytest.approx(cached["metrics"]["brier"]["value"], abs=1e-3)
    assert "views_averaged" not in found


def test_photos_of_a_folder_without_splits_are_all_judged(run: Path, no_page, capsys):
    for name, first in (("cats", 10), ("dogs", 150)):
        for i in range(40):
            draw(run.parent / "new" / name / f"{i}.png", first + i)
    found = evaluate_command.evaluate(settings(run, data=str(run.parent / "new")))
    assert (found["n"], found["split"]) == (80, "test")
    assert found["photos"].startswith(f"judged: all photos of {run.parent / 'new'}, which has no folders of splits")
    assert found["photos"] in capsys.readouterr().err
    assert "photos" not in evaluate_command.evaluate(settings(run))


def test_a_folder_of_the_test_split_alone_is_enough(run: Path, no_page):
    whole = evaluate_command.evaluate(settings(run, data=str(run.parent / "photos")))
    (run.parent / "only").mkdir()
    (run.parent / "photos" / "test").rename(run.parent / "only" / "test")
    alone = evaluate_command.evaluate(settings(run, data=str(run.parent / "only")))
    assert (alone["n"], alone["metrics"]) == (24, whole["metrics"])


def test_another_split_has_files_of_its_own(run: Path):
    (run / "metrics.json").write_text("of the test split")
    evaluate_command.evaluate(settings(run, split="validation"))
    assert (run / "metrics.json").read_text() == "of the test split"
    assert json.loads((run / "metrics-validation.json").read_text())["n"] == 2
    assert "Evaluate the test split too" in (run / "report-validation.html").read_text()


@pytest.mark.usefixtures("no_page")
def test_rows_other_than_the_manifests_are_an_error(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FeatureCache, "rows", lambda *_: 25)
    with pytest.raises(CatdogError, match=r"photos: expected ids for the 25 test rows in the manifest, found 24"):
        evaluate_command.evaluate(settings(run))
    assert not (run / "metrics.json").exists()


@pytest.mark.parametrize("name", ["ids", "labels", "probabilities"])
def test_every_count_of_rows_is_checked(name: str):
    predicted = Predicted("photos", ["a", "b"], np.array([0, 1]), np.array([[0.1], [0.9]]), [])
    evaluate.check_rows(predicted, 2, "rows")
    short = dataclasses.replace(predicted, **{name: getattr(predicted, name)[:1]})
    with pytest.raises(CatdogError, match=f"expected {name} for the 2 rows, found 1"):
        evaluate.check_rows(short, 2, "rows")
    with pytest.raises(CatdogError, match="expected ids for the 2 rows, found 1"):
        evaluate.check_rows(dataclasses.replace(predicted, ids=["a", "a"]), 2, "rows")


def test_features_of_other_weights_are_an_error(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "load", lambda *_: SimpleNamespace(sha256="cd" * 32, mode="torch", params={}))
    with pytest.raises(CatdogError, match="weights_sha256"):
        evaluate_command.evaluate(settings(run, data=str(run.parent / "photos")))
    other = extract.extract(ExtractConfig(data=str(run.parent / "photos"), out=run.parent / "other"))
    with pytest.raises(CatdogError, match="weights_sha256"):
        evaluate_command.evaluate(settings(run, features=other.path))


def test_photos_of_other_classes_are_an_error(run: Path):
    for folder in (run.parent / "photos").glob("*/dogs"):
        folder.rename(folder.with_name("wolves"))
    with pytest.raises(CatdogError, match=r"classes.*wolves"):
        evaluate_command.evaluate(settings(run, data=str(run.parent / "photos")))


def test_data_and_features_do_not_go_together(run: Path):
    with pytest.raises(UsageError, match="--data and --features: expected one"):
        evaluate_command.evaluate(settings(run, data="demo", features=run))


def test_a_run_that_does_not_name_its_features(run: Path):
    (run / "config.json").write_text("{}")
    with pytest.raises(
        CatdogError, match=r"config.json: expected the path of the feature cache under 'features', found None"
    ):
        evaluate_command.evaluate(settings(run))


def test_photos_that_are_gone_are_reported(run: Path):
    (run.parent / "photos" / "test" / "cats" / "250.png").unlink()
    evaluate_command.evaluate(settings(run))
    page = (run / "report.html").read_text()
    assert page.count('src="data:image/jpeg;base64,') == 3
    assert "Photos that cannot be shown: test/cats/250.png" in page
    shutil.rmtree(run.parent / "photos")
    evaluate_command.evaluate(settings(run))
    page = (run / "report.html").read_text()
    assert "data:image" not in page
    assert "The photos cannot be shown: " in page


def test_a_name_that_is_not_utf8_does_not_stop_the_report(run: Path, monkeypatch: pytest.MonkeyPatch):
    broken = [{"id": "cats/\udcff.jpg", "reason": "damaged"}]
    monkeypatch.setattr(FeatureCache, "skipped", lambda *_: broken)
    result = evaluate_command.evaluate(settings(run))
    assert sealed.read_sealed_json(run / "metrics.json", "figures") == result
    assert "cats/<wbr>\\udcff.jpg" in (run / "report.html").read_text()


def test_history_is_read_or_refused(tmp_path: Path):
    path = tmp_path / "history.csv"
    assert run_files.read_history(path) is None
    path.write_text("epoch,train_loss,validation_loss,validation_accuracy\n1,0.5,0.6,0.75\n2,0.4,0.5,1\n")
    assert run_files.read_history(path) == {
        "epoch": [1, 2],
        "train_loss": [0.5, 0.4],
        "validation_loss": [0.6, 0.5],
        "validation_accuracy": [0.75, 1],
    }
    for content in (
        "epoch\n1\n",
        "epoch,train_loss,validation_loss,validation_accuracy\n1,2,3\n",
        "epoch,train_loss\nx,y\n",
    ):
        path.write_text(content)
        with pytest.raises(CatdogError, match=r"history.csv: expected columns of numbers"):
            run_files.read_history(path)


def test_few_photos_are_said_to_be_few_everywhere(run: Path, capsys: pytest.CaptureFixture):
    fitted = head.load(run / "head.safetensors")
    recipe = {"abstain_below": None, "calibration_photos": 2, "temperature": 1.0}
    dataclasses.replace(fitted, recipe=recipe).save(run / "head.safetensors")
    result = evaluate_command.evaluate(settings(run))
    assert "abstention" not in result
    few, uncalibrated = result["warnings"]
    assert few == "24 test photos: with 4 mistakes among them, the share of mistakes may be anything from 7 to 36 %."
    assert uncalibrated.startswith("2 validation photos calibrated the head: too few")
    shown, page = capsys.readouterr(), (run / "report.html").read_text()
    for sentence in (few, uncalibrated):
        assert sentence in shown.out
        assert f'<p class="note">{sentence}</p>' in page


@pytest.mark.usefixtures("no_page")
def test_table_shows_values_and_intervals(run: Path):
    found = evaluate.evaluate(head.load(run / "head.safetensors"), FeatureCache.open(run.parent / "features"))
    accuracy, screen = found.metrics["accuracy"], io.StringIO()
    Console(file=screen, width=80).print(evaluate_head.table(found))
    shown = screen.getvalue()
    assert f"{100 * accuracy.value:.2f}" in shown
    assert f"{100 * accuracy.low:.2f} – {100 * accuracy.high:.2f}" in shown
    assert "Averaged" in shown
    assert "always cats" in shown
    assert "F1 of dogs" in shown
    # Title, head, foot, the baseline and a line a metric: nothing wraps at 80 columns
    assert shown.count("\n") == 1 + 4 + 1 + 9


# ----------------------------------------------------------------------------------------------------
# from Python


@pytest.mark.usefixtures("no_page")
def test_python_gets_what_the_command_writes(run: Path, tmp_path: Path):
    written = evaluate_command.evaluate(settings(run))
    fitted = head.load(run / "head.safetensors")
    cache, photos = FeatureCache.open(run.parent / "features"), sources.load(str(run.parent / "photos"))
    found = evaluate.evaluate(fitted, cache, bootstrap=50)
    assert found.to_json() == written
    assert found.own_features
    found.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "metrics.json").read_bytes() == (run / "metrics.json").read_bytes()
    end_to_end = evaluate.evaluate(fitted, photos, bootstrap=50)
    assert end_to_end.to_json() == evaluate_command.evaluate(settings(run, data=str(run.parent / "photos")))
    assert not end_to_end.own_features


def test_an_evaluation_shows_itself(run: Path):
    found = evaluate.evaluate(head.load(run / "head.safetensors"), FeatureCache.open(run.parent / "features"))
    assert repr(found).splitlines()[0] == "Evaluation of cats or dogs on 24 test photos, with 95 % intervals"
    assert "Accuracy            83.33\u202f%  (64.15 – 93.32\u202f%)" in repr(found)
    frame = found._repr_html_()
    assert frame.count("<") == 2  # the frame alone: the page is its attribute
    assert html.unescape(frame).count("data:image/jpeg;base64,") == 4


def test_a_head_that_was_just_trained_shows_its_history(run: Path):
    fitted = head.load(run / "head.safetensors")
    epochs = (head.Epoch(1, 0.1, 0.7, 0.6, 0.5), head.Epoch(2, 0.1, 0.5, 0.4, 0.9))
    cache = FeatureCache.open(run.parent / "features")
    trained = evaluate.evaluate(dataclasses.replace(fitted, history=epochs), cache, bootstrap=20)
    assert trained.report() == trained.report(history=run_files.read_history(run / "history.csv"))
    assert "best epoch: 2" in trained.report()


def test_features_in_memory_are_evaluated():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    x = rng.normal(size=(60, 512)).astype(np.float32)
    x[:, 0] = 0.2 * (2 * labels - 1) * np.where(np.arange(60) < 6, -1, 1)  # the first six are mistakes
    fitted = head.FittedHead(Pool.AVG, HEAD, ("cats", "dogs"), Fingerprint(), {})
    found = evaluate.evaluate(fitted, (x, labels), bootstrap=50)
    probabilities = 1 / (1 + np.exp(-10 * x[:, 0].astype(np.float64)))
    assert found.confusion == sklearn.metrics.confusion_matrix(labels, probabilities >= 0.5).tolist()
    assert found.metrics["accuracy"].value == 0.9
    assert found.metrics["log_loss"].value == pytest.approx(sklearn.metrics.log_loss(labels, probabilities), rel=1e-5)
    assert {mistake["id"] for mistake in found.worst} == {f"row {i}" for i in range(6)}
    assert "The rows were given as features, without photos to show." in found.report()


@pytest.mark.parametrize(
    ("x", "labels", "message"),
    [
        (np.zeros((4, 7)), [0, 1, 0, 1], r"x: expected features \[N, 512\], found float32 \[4, 7\]"),
        (np.full((4, 512), "a"), [0, 1, 0, 1], r"features: expected x of numbers, \[N, columns\]"),
        (np.zeros((4, 512)), [0, 1, 0], r"features: expected a label of 0 or 1 a row, \[4\], found int64 \[3\]"),
        (np.zeros((4, 512)), [0, 1, 0, 2], "features: expected labels of 0 or 1, found 2"),
        (np.full((4, 512), np.nan), [0, 1, 0, 1], "features: expected finite numbers"),
        (np.zeros((4, 512)), [1, 1, 1, 1], "features: expected rows of both classes, found none with the label 0"),
    ],
)
def test_arrays_that_do_not_fit_are_an_error(x, labels, message):
    fitted = head.FittedHead(Pool.AVG, HEAD, ("cats", "dogs"), Fingerprint(), {})
    with pytest.raises(CatdogError, match=message):
        evaluate.evaluate(fitted, (x, labels))


def test_wrong_arguments_are_named():
    fitted = head.FittedHead(Pool.AVG, HEAD, ("cats", "dogs"), Fingerprint(), {})
    rows = (np.zeros((2, 512)), [0, 1])
    with pytest.raises(TypeError, match=r"photos: expected a FeatureCache, a Dataset or a pair .* found str"):
        evaluate.evaluate(fitted, "photos")
    with pytest.raises(TypeError, match="head: expected a FittedHead, found str"):
        evaluate.evaluate("run", rows)
    with pytest.raises(UsageError, match="--split: expected train, validation, test or folds, found dev"):
        evaluate.evaluate(fitted, rows, split="dev")
    with pytest.raises(UsageError, match="--bootstrap: expected 1 or more, found 0"):
        evaluate.evaluate(fitted, rows, bootstrap=0)
