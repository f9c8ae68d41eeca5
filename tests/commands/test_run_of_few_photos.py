"""`catdog run` on folders of few photos: cross-validated by itself, and told so. The network and the export are stand-ins."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from helpers.models import tiny_model
from PIL import Image

from catdog_jax import cli
from catdog_jax.backbone import weights
from catdog_jax.deployment import onnx_file
from catdog_jax.features import extractor
from catdog_jax.files import sealed
from catdog_jax.heads import head
from catdog_jax.photos import sources

pytestmark = pytest.mark.lenient_types


class Brightness:
    """Stands for the convolutions: every feature of a photo says how bright it is, each a little otherwise."""

    batch_size = 5
    precision = "float32"
    note, size = "", 224

    def __init__(self, pretrained, pool="avg", views=("original",), **_):
        self.columns, self.views = 1024, len(views)

    def dispatch(self, photos: np.ndarray) -> np.ndarray:
        grey = photos.mean(axis=(1, 2, 3)) / 255
        rows = np.abs(np.sin(np.outer(1 + grey, np.arange(1, self.columns + 1)))) + 4 * grey[:, None]
        return np.repeat(rows[:, None], self.views, axis=1).astype(np.float32)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    def export(config, *_):
        onnx.save(tiny_model(), config.run / "model.onnx")
        return config.run / "model.onnx"

    monkeypatch.setattr(extractor, "Extractor", Brightness)
    monkeypatch.setattr(weights, "load", lambda *_: SimpleNamespace(sha256="ab" * 32, mode="torch", params={}))
    monkeypatch.setattr("catdog_jax.commands.export.export", export)


def draw(folder: Path, each: int) -> Path:
    """So many photos of each class, whose brightness tells it."""
    for name, first in (("cats", 10), ("dogs", 150)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            Image.new("L", (8, 8), first + 90 * i // each).save(folder / name / f"{i}.png")
    return folder


def run(photos: Path, out: Path, *options: str) -> int:
    return cli.main(["run", "--data", str(photos), "--out", str(out), *options])


def figures(out: Path, name: str = "metrics-folds.json") -> dict:
    return json.loads((out / name).read_text())


def test_a_small_folder_is_cross_validated_and_no_photo_is_wasted(tmp_path, capsys):
    photos, out = draw(tmp_path / "photos", 10), tmp_path / "run"
    assert run(photos, out) == 0
    shown, notes = capsys.readouterr()
    assert "20 photos to train on, fewer than 500" in (said := " ".join(notes.split()))
    assert "cross-validating" in said
    assert "20 photos, each judged by heads that had not seen it: 5 folds, 3 times" in " ".join(shown.split())
    assert shown.count("20 cross-validated photos") >= 2  # of the stage, and at the end
    assert "heads of other folds say" in shown
    assert "test photos" not in shown
    rows = list(csv.DictReader((out / "out-of-fold.csv").read_text().splitlines()))
    assert {row["id"] for row in rows} == {
        record.id for record in sources.load(str(photos), (), undivided=True).records
    }
    assert figures(out)["n"] == 20
    assert {"report-folds.html", "model.onnx", "config.json"} <= {path.name for path in out.iterdir()}
    fitted = head.load(out / "head.safetensors")
    measured = sealed.read_sealed_json(out / "metrics-folds.json", "figures")
    assert onnx_file.tested_figures(fitted, ("original",), measured)["split"] == "folds"


def test_three_photos_a_class_are_three_folds(tmp_path):
    assert run(draw(tmp_path / "photos", 3), tmp_path / "run") == 0
    assert head.load(tmp_path / "run" / "head.safetensors").recipe["folds"] == 3


@pytest.mark.parametrize(
    ("each", "options", "message"),
    [
        (1, (), "--folds: expected 2 or more photos of each class that do not belong together, found the 1 photo of 'cats'"),
        (3, ("--folds", "5"), "--folds: expected 2 to 3 for the 3 photos of 'cats', found 5"),
        (3, ("--folds", "0"), "expected at least 10 different photos of each class"),
        (3, ("--folds", "3", "--sweep", "2"), "--folds: expected a linear head, which is fitted exactly, found --sweep"),
    ],
)  # fmt: skip
def test_what_cannot_be_folded_is_told_and_nothing_is_written(tmp_path, capsys, each, options, message):
    assert run(draw(tmp_path / "photos", each), tmp_path / "run", *options) in (1, 2)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_a_test_split_that_is_named_is_judged(tmp_path, capsys):
    draw(tmp_path / "photos" / "train", 8)
    draw(tmp_path / "photos" / "test", 4)
    assert run(tmp_path / "photos", tmp_path / "run") == 0
    shown = capsys.readouterr().out
    assert "8 test photos" in shown
    assert "model says" in shown
    assert figures(tmp_path / "run", "metrics.json")["n"] == 8
    assert len((tmp_path / "run" / "out-of-fold.csv").read_text().splitlines()) == 17


@pytest.mark.parametrize("options", [("--folds", "0"), ("--head", "mlp", "--epochs", "1")])
def test_who_asks_for_splits_or_another_head_gets_splits(tmp_path, options):
    assert run(draw(tmp_path / "photos", 10), tmp_path / "run", *options) == 0
    assert figures(tmp_path / "run", "metrics.json")["n"] == 2
    assert not (tmp_path / "run" / "out-of-fold.csv").exists()
