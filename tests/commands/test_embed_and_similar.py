"""`catdog embed` and `catdog similar`, and `cd.similar`: what they write and print, and what they refuse."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.caches import PRINTS
from helpers.models import METADATA, embedding, embedding_model
from PIL import Image

import catdog_jax as cd
from catdog_jax import cli
from catdog_jax.features import shards
from catdog_jax.features.shards import Rows
from catdog_jax.files import atomic
from catdog_jax.photos import decoding
from catdog_jax.photos.recipe import DEFAULT

COLOURS = {
    "red": (200, 30, 30),
    "rose": (210, 60, 60),
    "blue": (20, 40, 220),
    "sky": (60, 90, 230),
    "green": (10, 230, 20),
}
LABELS = {"red": 0, "rose": 0, "blue": 1, "sky": 1, "green": 0}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    metadata = METADATA | {"weights_sha256": PRINTS.weights_sha256}
    Path("run/model.onnx").write_bytes(embedding_model(metadata=metadata).SerializeToString())
    Path("photos").mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (20, 30), colour).save(f"photos/{name}.png")
    return tmp_path


def make_cache(labels: dict[str, int] = LABELS) -> Path:
    """A feature cache of the photos, as JAX would have made it."""
    rows = Rows()
    for name, label in labels.items():
        data = Path(f"photos/{name}.png").read_bytes()
        rows.ids.append(f"train/{name}.png")
        rows.labels.append(label)
        rows.hashes.append(atomic.sha256(data))
        rows.features.append(embedding(decoding.decode(data, DEFAULT))[None, None].astype(np.float32))
    shards.write_shard(Path("features"), "train-00000-of-00001", rows, PRINTS)
    shards.write_manifest(Path("features"), "made", ["train-00000-of-00001"], PRINTS)
    return Path("features")


def test_embed_writes_rows_and_their_list_and_verify_knows_them(here, capsys):
    Path("photos/bad.jpg").write_bytes(b"no photo")
    assert cli.main(["embed", "photos", "--out", "out/e.npy", "--batch-size", "2"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines()[0].startswith("photos/bad.jpg: expected JPEG")
    assert told.err.splitlines()[-1] == "out/e.npy: 5 photos of 512 columns on cpu, 1 unreadable; ids in out/e.json"
    listed = json.loads(Path("out/e.json").read_text())
    assert listed["ids"] == [f"photos/{name}.png" for name in sorted(COLOURS)]
    assert [skipped["id"] for skipped in listed["skipped"]] == ["photos/bad.jpg"]
    expected = [embedding(decoding.decode(Path(name).read_bytes(), DEFAULT)) for name in listed["ids"]]
    np.testing.assert_allclose(np.load("out/e.npy"), expected, rtol=1e-4, atol=1e-4)
    np.save("out/own.npy", np.zeros(3))
    assert cli.main(["verify", "out"]) == 0
    assert "own.npy" in (shown := capsys.readouterr().out)
    assert "not checked: no hash of it is known" in shown
    assert cli.main(["verify", "out/e.npy"]) == 0
    Path("out/e.npy").write_bytes(Path("out/e.npy").read_bytes()[:-1])
    assert cli.main(["verify", "out"]) == 1


def test_embed_without_a_readable_photo_writes_nothing(here, capsys):
    Path("bad.jpg").write_bytes(b"no photo")
    assert cli.main(["embed", "bad.jpg", "nothing.jpg", "--quiet"]) == 1
    assert (
        capsys.readouterr().err == "error: expected photos that can be decoded, found none of 2. Nothing was written.\n"
    )
    assert not list(here.glob("embeddings*"))


@pytest.mark.parametrize("among", ["features", "e.npy"])
def test_the_nearest_photos_in_every_form(here, capsys, monkeypatch, among):
    monkeypatch.setenv("COLUMNS", "200")
    make_cache()
    assert cli.main(["embed", "photos", "--out", "e.npy", "--quiet"]) == 0
    words = ["similar", "photos/red.png", "gone.jpg", "--in", among, "--top", "3"]
    assert cli.main([*words, "--format", "jsonl"]) == 1
    told = capsys.readouterr()
    found = [json.loads(line) for line in told.out.splitlines()]
    assert [Path(row["id"]).name for row in found[:2]] == ["red.png", "rose.png"]
    assert [row["same"] for row in found[:3]] == [True, False, False]
    assert found[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert found[1]["label"] == ("cats" if among == "features" else None)
    assert found[3] == {"photo": "gone.jpg", "error": "expected a file, found nothing"}
    assert told.err == f"2 photos on cpu among 5 of {among}: 1 unreadable\n"
    assert cli.main([*words, "--format", "csv", "--quiet"]) == 1
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["id"], row["same"]) for row in lines[:3]] == [(r["id"], str(r["same"]).lower()) for r in found[:3]]
    assert lines[3]["error"] == found[3]["error"]
    assert cli.main(words) == 1
    shown = capsys.readouterr().out.splitlines()
    assert "the same file" in next(line for line in shown if "1.0000" in line)
    assert any("gone.jpg" in line and "found nothing" in line for line in shown)


def test_a_label_that_its_neighbours_contradict_is_said(here, capsys):
    Image.new("RGB", (20, 30), (205, 40, 45)).save("photos/wrong.png")
    make_cache(LABELS | {"wrong": 1})
    assert cli.main(["similar", "photos/wrong.png", "photos/rose.png", "--in", "features", "--top", "3"]) == 0
    out = capsys.readouterr().out
    expected = (
        "photos/wrong.png: labelled dogs as train/wrong.png, but 2 of the 2 nearest others are cats. Look at its label."
    )
    assert expected in out
    assert "photos/rose.png: labelled" not in out
    Path("photos/again.png").write_bytes(Path("photos/red.png").read_bytes())
    make_cache(LABELS | {"again": 1})
    assert cli.main(["similar", "photos/red.png", "--in", "features", "--top", "2"]) == 0
    expected = "photos/red.png: the same file is labelled cats as train/red.png and dogs as train/again.png."
    assert expected in capsys.readouterr().out


def test_features_of_other_weights_are_refused(here, capsys):
    make_cache()
    metadata = METADATA | {"weights_sha256": "f" * 64}
    Path("other.onnx").write_bytes(embedding_model(metadata=metadata).SerializeToString())
    assert cli.main(["similar", "photos/red.png", "--in", "features", "--model", "other.onnx"]) == 1
    expected = (
        "error: features: expected features of the model's weights, sha256 ffffffffffff…, found those of 000000000000…."
    )
    assert capsys.readouterr().err.startswith(expected)


def test_from_python(here):
    cache = cd.FeatureCache.open(make_cache())
    model = cd.Predictor("run/model.onnx")
    (first, second) = cd.similar("photos/blue.png", cache, model=model, top=2)
    assert (Path(first.id).name, first.label, first.same) == ("blue.png", "dogs", True)
    assert (Path(second.id).name, second.label, second.same) == ("sky.png", "dogs", False)
    photos = [Path("photos/red.png").read_bytes(), Image.open("photos/sky.png")]
    many = cd.similar(photos, "features", top=1)
    assert [[Path(near.id).name for near in one] for one in many] == [["red.png"], ["sky.png"]]
    assert [one[0].same for one in many] == [True, None]
    with pytest.raises(ValueError, match="top: expected 1 or more, found 0"):
        cd.similar("photos/red.png", cache, top=0)
