"""Exported models side by side, on models whose answers are known."""

import json

import pytest
from sklearn.metrics import f1_score, log_loss
from test_predict import probability_of_dogs, save_grey, tiny_model

from catdog_jax import cli, data, images
from catdog_jax.config import EvaluateConfig
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.judging import judge_models

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
    shown = capsys.readouterr().err
    assert "8 test photos" in shown
    assert "fp32" in shown
    result = json.loads((tmp_path / "models.json").read_text())
    assert (result["split"], result["n"]) == ("test", 8)
    labels = [0] * 4 + [1] * 4
    p = [probability_of_dogs(grey) for greys in GREYS.values() for grey in greys]
    sure, calm = result["models"]
    assert sure["metrics"]["accuracy"]["value"] == calm["metrics"]["accuracy"]["value"] == 0.75
    assert sure["metrics"]["f1"]["value"] == pytest.approx(f1_score(labels, [one >= 0.5 for one in p]))
    assert sure["metrics"]["log_loss"]["value"] == pytest.approx(log_loss(labels, p), rel=1e-5)
    assert sure["metrics"]["log_loss"]["value"] != pytest.approx(calm["metrics"]["log_loss"]["value"])
    assert (sure["bytes"], calm["decides_otherwise"]) == (models[0].stat().st_size, 0)
    assert sure["photos_per_second"] > 0
    assert [one["id"] for one in result["skipped"]] == ["test/dogs/broken.png"]
    assert "photos that cannot be decoded and are left out: 1;" in " ".join(shown.split())


def test_a_failing_disk_is_no_undecodable_photo(photos, models, tmp_path, monkeypatch):
    def fail(_):
        raise images.UnreadableError("cannot be read: Input/output error")

    monkeypatch.setattr(data, "_BEFORE_RETRY", 0)
    monkeypatch.setattr(images, "read_photo", fail)
    with pytest.raises(CatdogError, match=r"Input/output error, twice\. Mend the disk"):
        judge_models(EvaluateConfig(model=models, data=str(photos), out=tmp_path))


def test_models_need_photos(models):
    with pytest.raises(UsageError, match="--model: expected --data"):
        judge_models(EvaluateConfig(model=models))


def test_a_model_of_other_classes_is_refused(photos, tmp_path):
    other = tmp_path / "birds.onnx"
    metadata = {**{one.key: one.value for one in tiny_model().metadata_props}, "classes": '["birds", "cats"]'}
    other.write_bytes(tiny_model(metadata=metadata).SerializeToString())
    with pytest.raises(CatdogError, match=r"birds\.onnx: expected a model of \('cats', 'dogs'\)"):
        judge_models(EvaluateConfig(model=(other,), data=str(photos)))
