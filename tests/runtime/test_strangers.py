"""Photos of neither class, as `catdog predict`, the Python API and sorted folders tell them; and old models, which do not."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.models import METADATA, save_grey, strange_model, tiny_model

import catdog_jax as cd
from catdog_jax import cli
from catdog_jax.errors import CatdogError

GREYS = {"dark": 100, "dim": 126, "bright": 160, "white": 250}  # strangeness is the grey / 255, neither above 0.5
NEITHER = "Neither: it is unlike the photos that this model was trained on. Of the two, rather dogs."


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(strange_model().SerializeToString())
    Path("old.onnx").write_bytes(tiny_model().SerializeToString())
    Path("photos").mkdir()
    for name, grey in GREYS.items():
        save_grey(Path(f"photos/{name}.png"), grey)
    return tmp_path


def predicted(*words: str, status: int = 0) -> None:
    assert cli.main(["predict", "photos", "--model", "model.onnx", *words]) == status


def test_a_prediction_has_the_strangeness_and_says_neither(here):
    model = cd.Predictor("model.onnx")
    assert model.knows_strangers
    found = {name: model(f"photos/{name}.png") for name in GREYS}
    assert [one.neither for one in found.values()] == [False, False, True, True]
    for name, grey in GREYS.items():
        assert found[name].strangeness == pytest.approx(grey / 255, rel=1e-6)
    assert repr(found["white"]).startswith("Prediction(neither, rather dogs, probability 1.0000, strangeness 0.980")
    assert "neither, rather dogs" in found["white"]._repr_html_()
    computed = model.compute(np.zeros((0, 224, 224, 3), np.uint8))
    assert (computed.strangeness.shape, computed.heatmaps) == ((0,), None)
    old = cd.Predictor("old.onnx")
    assert not old.knows_strangers
    assert old("photos/white.png").neither is old("photos/white.png").strangeness is None
    assert "strangeness" not in repr(old("photos/white.png"))


def test_every_form_has_it(here, capsys):
    predicted("--format", "jsonl")
    objects = {Path(row["path"]).stem: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {name: row["neither"] for name, row in objects.items()} == {
        "dark": False,
        "dim": False,
        "bright": True,
        "white": True,
    }
    assert (objects["white"]["class"], objects["white"]["why"]) == ("dogs", NEITHER)
    predicted("--format", "csv")
    rows = {Path(row["path"]).stem: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert list(rows["white"])[-2:] == ["strangeness", "neither"]
    assert [rows[name]["neither"] for name in GREYS] == ["false", "false", "true", "true"]
    predicted()
    told = capsys.readouterr()
    assert "neither, rather dogs" in told.out
    assert told.err.splitlines()[-1] == "4 photos on cpu: 1 cats, 0 dogs, 1 unsure, 2 of neither class, 0 unreadable"
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    predicted("--out", "r.parquet")
    table = {Path(row["path"]).stem: row for row in parquet.read_table("r.parquet").to_pylist()}
    for name in GREYS:
        expected = objects[name]["strangeness"]
        assert table[name]["strangeness"] == float(rows[name]["strangeness"]) == expected
        assert table[name]["neither"] is objects[name]["neither"]


def test_an_unreadable_photo_has_neither_of_both(here, capsys):
    Path("photos/bad.jpg").write_bytes(b"no photo")
    predicted("--format", "csv", status=1)
    rows = {Path(row["path"]).stem: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert (rows["bad"]["strangeness"], rows["bad"]["neither"]) == ("", "")


def test_they_have_a_folder_and_come_first(here, capsys):
    predicted("--sort", "sorted", "--unsure-first", "--format", "jsonl")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(row["path"]).stem for row in rows] == ["white", "bright", "dim", "dark"]
    assert sorted(str(path.relative_to("sorted")) for path in Path("sorted").rglob("*.png")) == [
        "cats/dark.png",
        "neither/bright.png",
        "neither/white.png",
        "unsure/dim.png",
    ]


def test_a_class_called_neither_keeps_its_folder(here, capsys):
    model = strange_model()
    for entry in model.metadata_props:
        if entry.key == "classes":
            entry.value = '["neither", "unsure"]'
    Path("model.onnx").write_bytes(model.SerializeToString())
    predicted("--sort", "sorted", "--format", "csv")
    assert sorted(path.name for path in Path("sorted").iterdir()) == ["neither", "neither-2", "unsure-2"]


def test_an_old_model_says_nothing_of_strangers_unless_it_is_asked_for(here, capsys):
    predicted("--format", "csv", "--model", "old.onnx")
    told = capsys.readouterr()
    assert "neither" not in told.out + told.err
    predicted("--require-strangeness")
    capsys.readouterr()
    predicted("--require-strangeness", "--model", "old.onnx", status=2)
    told = capsys.readouterr()
    assert told.out == ""
    assert " ".join(told.err.split()).endswith(
        "--require-strangeness: expected a model with the output 'strangeness', found none: it cannot tell photos of "
        "neither class. Train and export again, or leave it out."
    )


def test_a_level_without_the_output_is_refused(here):
    metadata = METADATA | {"decision": '{"threshold": 0.5, "abstain_below": null, "strange_above": 0.5}'}
    Path("model.onnx").write_bytes(tiny_model(metadata=metadata).SerializeToString())
    with pytest.raises(
        CatdogError, match=r"model.onnx: expected .* without strangeness tensor\(float\) \[N\], of which"
    ):
        cd.Predictor("model.onnx")


def test_an_output_without_a_level_is_not_followed(here):
    model = strange_model()
    for entry in model.metadata_props:
        if entry.key == "decision":
            entry.value = '{"threshold": 0.5, "abstain_below": null}'
    Path("model.onnx").write_bytes(model.SerializeToString())
    assert cd.Predictor("model.onnx")("photos/white.png").neither is None


def test_nan_is_an_error(here):
    model = strange_model()
    for constant in model.graph.initializer:
        if constant.name == "white":
            constant.raw_data = np.float32(np.nan).tobytes()
    Path("model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CatdogError, match="expected finite strangeness, found NaN"):
        cd.Predictor("model.onnx")("photos/white.png")
