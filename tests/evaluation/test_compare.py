"""Exported models side by side, on models whose answers are known."""

import json

import numpy as np
import pytest
from helpers.models import METADATA, probability_of_dogs, save_grey, strange_model, tiny_model
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss

from catdog_jax import cli
from catdog_jax.commands.evaluate import evaluate
from catdog_jax.config import EvaluateConfig
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.evaluation.compare import compare
from catdog_jax.files import atomic, sealed
from catdog_jax.photos import decoding, sources

GREYS = {"cats": (100, 110, 135, 118), "dogs": (150, 140, 125, 160)}  # one of each on the wrong side


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for split in ("train", "validation", "test"):
        for name, greys in GREYS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for grey in greys if split == "test" else greys[:1]:
                save_grey(folder / f"{grey}.png", grey)
    (root / "test" / "dogs" / "broken.png").write_bytes(b"nothing")
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, scale in (("calm", 80.0), ("sure", 8.0)):
        (folder / f"{name}.onnx").write_bytes(tiny_model(scale=scale).SerializeToString())
    return folder / "sure.onnx", folder / "calm.onnx"


def test_metrics_are_those_of_the_known_answers(photos, models, tmp_path, capsys):
    arguments = [str(path) for path in models]
    assert cli.main(["evaluate", "--model", *arguments, "--data", str(photos), "--out", str(tmp_path)]) == 0
    shown, notes = capsys.readouterr()
    assert all(words in shown and words not in notes for words in ("8 test photos", "fp32"))
    result = json.loads((tmp_path / "models.json").read_text())
    assert (result["split"], result["n"]) == ("test", 8)
    assert [one["id"] for one in result["skipped"]] == ["test/dogs/broken.png"]
    assert "unknown content" in result["skipped"][0]["reason"]
    assert "photos that could not be read and count nowhere: 1, listed in models.json" in shown
    labels = [0] * 4 + [1] * 4
    p = [probability_of_dogs(grey) for greys in GREYS.values() for grey in greys]
    sure, calm = result["models"]
    assert sure["metrics"]["accuracy"]["value"] == calm["metrics"]["accuracy"]["value"] == 0.75
    assert sure["metrics"]["f1"]["value"] == pytest.approx(f1_score(labels, [one >= 0.5 for one in p]))
    assert sure["metrics"]["log_loss"]["value"] == pytest.approx(log_loss(labels, p), rel=1e-5)
    assert sure["metrics"]["log_loss"]["value"] != pytest.approx(calm["metrics"]["log_loss"]["value"])
    few = "8 test photos: with 2 mistakes among them, the share of mistakes may be anything from 7 to 59 %."
    assert result["warnings"][0] == few
    assert [one.split(",")[0] for one in result["warnings"][1:]] == ["The accuracy"]
    assert (result["classes"], result["baseline"]) == (["cats", "dogs"], {"class": "cats", "accuracy": 0.5})
    assert few in shown
    assert (sure["bytes"], calm["decides_otherwise"]) == (models[0].stat().st_size, 0)
    assert sure["photos_per_second"] > 0
    assert sure["sha256"] == atomic.sha256_of_file(models[0])
    assert sealed.read_sealed_json(tmp_path / "models.json", "comparison") == {
        k: v for k, v in result.items() if k != "sha256"
    }


def test_each_file_decides_by_its_own_threshold(photos, models, tmp_path, capsys):
    rule = {"decision": '{"threshold": 0.12, "abstain_below": null}'}
    eager = tmp_path / "eager.onnx"
    eager.write_bytes(tiny_model(metadata=METADATA | rule).SerializeToString())
    found = compare([models[0], eager], sources.load(str(photos)))
    p = np.array([probability_of_dogs(grey) for greys in GREYS.values() for grey in greys])
    labels = np.repeat([0, 1], 4)
    for model, threshold in zip(found.models, (0.5, 0.12), strict=True):
        assert model.threshold == threshold
        assert model.metrics["accuracy"].value == accuracy_score(labels, p >= threshold)
        assert model.metrics["balanced_accuracy"].value == balanced_accuracy_score(labels, p >= threshold)
    assert found.models[1].decides_otherwise == ((p >= 0.12) != (p >= 0.5)).sum() > 0
    assert found.baseline == ("cats", 0.5)
    evaluate(EvaluateConfig(model=(eager,), data=str(photos), out=tmp_path))
    assert "dogs from 0.12 on" in capsys.readouterr().out


def test_what_a_model_calls_neither_is_counted(photos, models, tmp_path, capsys):
    """Half of the greys are above its level; the metrics count them as before."""
    greys = [grey for of_class in GREYS.values() for grey in of_class]
    knowing = tmp_path / "knowing.onnx"
    knowing.write_bytes(strange_model(above=float(np.median(greys) / 255)).SerializeToString())
    plain, strict = compare([models[0], knowing], sources.load(str(photos))).models
    assert (plain.neither, strict.neither) == (None, 4)
    assert (strict.to_json()["neither"], plain.to_json()["neither"]) == (4, None)
    assert strict.metrics["accuracy"] == plain.metrics["accuracy"]
    evaluate(EvaluateConfig(model=(knowing,), data=str(photos), out=tmp_path))
    assert "Neither" in capsys.readouterr().out


def test_a_failing_disk_is_no_undecodable_photo(photos, models, tmp_path, monkeypatch):
    def fail(_):
        raise decoding.UnreadableError("cannot be read: Input/output error")

    monkeypatch.setattr(sources, "_BEFORE_RETRY", 0)
    monkeypatch.setattr(decoding, "read_photo", fail)
    with pytest.raises(CatdogError, match=r"Input/output error, twice\. Repair the disk"):
        evaluate(EvaluateConfig(model=models, data=str(photos), out=tmp_path))


def test_all_photos_of_a_folder_without_splits_are_compared(models, tmp_path, capsys):
    for name, first in (("cats", 90), ("dogs", 130)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(40):
            save_grey(tmp_path / "photos" / name / f"{i}.png", first + i)
    (tmp_path / "photos" / "dogs" / "phone.jxl").write_bytes(b"\xff\x0a\xfa\x7f")
    arguments = ["--data", str(tmp_path / "photos"), "--out", str(tmp_path)]
    assert cli.main(["evaluate", "--model", str(models[0]), *arguments]) == 0
    shown = capsys.readouterr().err
    result = json.loads((tmp_path / "models.json").read_text())
    assert result["n"] == 80
    assert result["photos"] == f"judged: all photos of {tmp_path / 'photos'}, which has no folders of splits; " + (
        "a model may have been trained on some of them"
    )
    assert result["photos"] in shown
    assert "left out: 1 .jxl" in shown


def test_a_folder_of_the_test_split_alone_is_enough(photos, models, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "test").symlink_to(photos / "test")
    config = EvaluateConfig(model=models, data=str(tmp_path / "photos"), out=tmp_path)
    assert evaluate(config)["n"] == 8


def test_what_a_model_was_trained_on_is_kept_apart_by_its_hash(tmp_path):
    for name, first in (("cats", 90), ("dogs", 130)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(100):
            save_grey(tmp_path / "photos" / name / f"{i}.png", (first + i) % 256)
    trained_on = sources.load(str(tmp_path / "photos"))
    metadata = {one.key: one.value for one in tiny_model().metadata_props}
    metadata["features"] = json.dumps({"inputs_sha256": trained_on.inputs_sha256})
    (tmp_path / "own.onnx").write_bytes(tiny_model(metadata=metadata).SerializeToString())
    result = evaluate(EvaluateConfig(model=(tmp_path / "own.onnx",), data=str(tmp_path / "photos"), out=tmp_path))
    assert result["n"] == len(trained_on.split("test")) < 50
    assert "by their hashes, because the model was trained on this folder" in result["photos"]


def test_models_need_photos(models):
    with pytest.raises(UsageError, match="--model: expected --data"):
        evaluate(EvaluateConfig(model=models))


def test_a_model_of_other_classes_is_refused(photos, tmp_path):
    other = tmp_path / "birds.onnx"
    metadata = {**{one.key: one.value for one in tiny_model().metadata_props}, "classes": '["birds", "cats"]'}
    other.write_bytes(tiny_model(metadata=metadata).SerializeToString())
    with pytest.raises(CatdogError, match=r"birds\.onnx: expected a model of \('cats', 'dogs'\)"):
        evaluate(EvaluateConfig(model=(other,), data=str(photos)))


def test_python_compares_files_on_a_data_set(photos, models):
    found = compare([str(path) for path in models], sources.load(str(photos), ()), bootstrap=50)
    assert (found.n, [model.name for model in found.models]) == (8, ["sure.onnx", "calm.onnx"])
    assert found.models[0].metrics["accuracy"].value == 0.75
    assert "sure.onnx: accuracy 75.00" in repr(found)
    with pytest.raises(UsageError, match="--model: expected model files, found none"):
        compare([], sources.load(str(photos), ()))
