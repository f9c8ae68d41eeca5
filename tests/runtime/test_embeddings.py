"""Photos as vectors: against a closed form, and the published file against the features that JAX has cached."""

import re
from pathlib import Path

import numpy as np
import pytest
from helpers.models import METADATA, embedding, embedding_model, save_grey, tiny_model
from onnx import helper
from PIL import Image

from catdog_jax.auditing import similar
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.photos import decoding
from catdog_jax.photos.recipe import FIRST
from catdog_jax.runtime import embeddings
from catdog_jax.runtime.embeddings import Embeddings, nearest
from catdog_jax.runtime.predictor import Predictor

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(embedding_model(metadata=METADATA | {"weights_sha256": "w"}).SerializeToString())
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (8, 7, 3), np.uint8)).resize((90, 60)).save(folder / f"{i}.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_embeddings_are_the_averages_in_any_number_of_batches(model: Path, photos: list[Path], batch_size: int) -> None:
    predictor = Predictor(model, batch_size=batch_size)
    found = predictor.embed(photos)
    expected = np.stack([embedding(decoding.decode(photo.read_bytes(), FIRST)) for photo in photos])
    assert (found.shape, found.dtype) == ((5, 512), np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(predictor.embed(photos[2]), predictor.embed([photos[2].read_bytes()]))
    assert predictor.probabilities(np.zeros((1, 224, 224, 3), np.uint8)).shape == (1, 2)


def test_what_is_no_photo_is_refused_or_said(model: Path, photos: list[Path]) -> None:
    predictor = Predictor(model, batch_size=2)
    given = [photos[0], b"no photo", b"", "nothing.jpg", photos[1]]
    found = list(predictor.stream_embeddings(given))
    assert [photo for photo, _ in found] == given
    assert [isinstance(row, decoding.ImageError) for _, row in found] == [False, True, True, True, False]
    np.testing.assert_array_equal(found[4][1], predictor.embed(photos[1])[0])
    with pytest.raises(CatdogError, match=r"nothing\.jpg: expected a file, found nothing\. Leave it out"):
        predictor.embed(given[3:])
    with pytest.raises(UsageError, match="photos: expected at least one photo, found none"):
        predictor.embed([])


def test_a_model_without_the_tensor_says_so(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(tiny_model().SerializeToString())
    expected = "found none with the tensor 'block5_conv3_pool'. Run `catdog export` again."
    with pytest.raises(CatdogError, match=re.escape(expected)):
        Predictor(tmp_path / "m.onnx").embed(np.zeros((224, 224, 3), np.uint8))


def test_a_tensor_of_another_shape_or_a_file_that_was_replaced(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "m.onnx"
    made = tiny_model()
    made.graph.node.append(helper.make_node("Relu", ["pixels"], ["block5_conv3_pool"]))
    path.write_bytes(made.SerializeToString())
    predictor, grey = Predictor(path), np.zeros((224, 224, 3), np.uint8)
    with pytest.raises(CatdogError, match=r"expected block5_conv3_pool of \[N, 512, 7, 7\], found \[1, 224, 224, 3\]"):
        predictor.embed(grey)
    predictor = Predictor(path)
    path.write_bytes(model.read_bytes())
    with pytest.raises(CatdogError, match="expected the model that was opened, found another that took its place"):
        predictor.embed(grey)


def test_nearest_is_the_cosine_in_float64() -> None:
    rng = np.random.default_rng(0)
    known, asked = rng.normal(size=(50, 8)).astype(np.float32), rng.normal(size=(3, 8)).astype(np.float32)
    known[7] = 0  # near nothing
    among = Embeddings(known, [str(i) for i in range(50)], "w", "fp32", ["cats", "dogs"] * 25, ["h"] * 50)
    for row, found, hashed in zip(asked, nearest(asked, among, 60, ["h", "i", None]), (True, False, None), strict=True):
        wide = known.astype(np.float64)
        lengths = np.linalg.norm(wide, axis=1) * np.linalg.norm(row.astype(np.float64))
        cosines = np.divide(wide @ row, lengths, out=np.zeros(50), where=lengths > 0)
        assert [int(near.id) for near in found] == np.argsort(-cosines, kind="stable").tolist()
        np.testing.assert_allclose([near.similarity for near in found], np.sort(cosines)[::-1], atol=2e-6)
        assert {near.same for near in found} == {hashed}
        assert all(near.label == ("cats", "dogs")[int(near.id) % 2] for near in found)


def test_the_two_files_belong_together(tmp_path: Path) -> None:
    path = tmp_path / "e.npy"
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    kept = Embeddings(rows, ["two\nlines", "\udce9"], "w", "int8", (), ["a", None], [{"id": "x", "reason": "y"}])
    embeddings.save(path, kept)
    found = embeddings.load(path)
    np.testing.assert_array_equal(np.load(path), rows)
    assert (found.ids, found.hashes, found.skipped) == (kept.ids, kept.hashes, kept.skipped)
    assert (found.weights_sha256, found.precision) == ("w", "int8")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CatdogError, match=r"e\.npy: expected the rows that .*e\.json lists, found others"):
        embeddings.load(path)
    path.unlink()
    with pytest.raises(CatdogError, match=r"e\.npy: expected embeddings, found: No such file"):
        embeddings.load(path)
    (tmp_path / "e.json").write_text((tmp_path / "e.json").read_text().replace("int8", "fp32"))
    with pytest.raises(CatdogError, match="it is altered"):
        embeddings.load(path)


def test_the_published_int8_file_finds_each_photo_in_the_features_that_jax_computed(shared_photos: list[Path]) -> None:
    """Of 200 photos each has a cosine of 0.996 or more with itself."""
    among = similar.look_in(ROOT / "artifacts" / "features")
    predictor = Predictor(ROOT / "artifacts" / "default" / "model-int8.onnx", batch_size=8)
    embeddings.check_comparable(among, "artifacts/features", predictor)
    names = [Path(photo).name for photo in shared_photos]
    for name, (first, second) in zip(names, nearest(predictor.embed(shared_photos), among, 2), strict=True):
        assert Path(first.id).name == name
        assert first.similarity > 0.99 > 0.95 > second.similarity


def test_greys_are_near_each_other(model: Path, tmp_path: Path) -> None:
    one, other = (save_grey(tmp_path / f"{grey}.png", grey) for grey in (90, 200))
    rows = Predictor(model).embed([one, other])
    among = Embeddings(rows, ["90", "200"], "w", "fp32")
    assert [near.similarity for near in nearest(rows[:1], among, 2)[0]] == pytest.approx([1, 1], abs=1e-5)
