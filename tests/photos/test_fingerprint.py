"""Fingerprints: the bytes of published files come back, what a newer version adds is kept, nonsense is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import onnx
import pytest
import safetensors

from catdog_jax.errors import CatdogError
from catdog_jax.features import shards
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import sealed
from catdog_jax.heads import head
from catdog_jax.photos.fingerprint import Fingerprint, FingerprintError
from catdog_jax.runtime.predictor import Predictor

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
MODEL = ARTIFACTS / "default" / "model-int8.onnx"


def test_the_published_cache_is_read_and_written_to_the_same_bytes(tmp_path):
    cache = FeatureCache.open(ARTIFACTS / "features")
    assert (cache.pool, cache.views, cache.classes) == ("avg", ("original",), ("cats", "dogs"))
    for path in (ARTIFACTS / "features").glob("*.json"):
        value = sealed.read_sealed_json(path, "file")
        value["fingerprint"] = Fingerprint.from_json(value["fingerprint"]).to_json()
        sealed.write_sealed_json(tmp_path / path.name, value)
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_the_published_cache_would_be_resumed(tmp_path):
    shutil.copytree(ARTIFACTS / "features", tmp_path / "features")
    fingerprint = FeatureCache.open(ARTIFACTS / "features").fingerprint
    names = [f"{split}-00000-of-00001" for split in ("train", "validation", "test")]
    assert shards.finished(tmp_path / "features", names, fingerprint) == {*names}
    other = dataclasses.replace(fingerprint, dtype="float32")
    assert not shards.finished(tmp_path / "features", names, other)
    with pytest.raises(FingerprintError, match="another fingerprint: dtype is 'float16', expected 'float32'"):
        other.check_same(fingerprint, tmp_path / "features")


def test_the_published_head_is_read_and_written_to_the_same_bytes(tmp_path):
    path = ARTIFACTS / "default" / "head.safetensors"
    head.load(path).save(tmp_path / "head.safetensors")
    assert (tmp_path / "head.safetensors").read_bytes() == path.read_bytes()


def test_the_published_model_says_the_fingerprint_of_its_head():
    fitted = head.load(ARTIFACTS / "default" / "head.safetensors")
    said = {entry.key: entry.value for entry in onnx.load(MODEL).metadata_props}
    assert said["features"] == json.dumps(fitted.fingerprint.to_json(), sort_keys=True)
    assert said["features_fingerprint"] == sealed.sha256_of_json(fitted.fingerprint.to_json())
    assert Predictor(MODEL).fingerprint == fitted.fingerprint


def test_fields_of_a_newer_version_are_kept():
    value = {"pool": "avg", "views": ["original"], "crop": {"left": 3}}
    found = Fingerprint.from_json(value)
    assert found.others == {"crop": {"left": 3}}
    assert found.to_json() == value
    with pytest.raises(FingerprintError, match=r"here: .* crop is None, expected \{'left': 3\}. Choose another --out"):
        found.check_same(Fingerprint.from_json({"pool": "avg", "views": ["original"]}), "here")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "expected a JSON object, found list"),
        ({"pool": 3}, "pool: expected a text, found 3"),
        ({"inputs": "many"}, "inputs: expected a number, found 'many'"),
        ({"views": "original"}, "views: expected a list of texts, found 'original'"),
        ({"classes": ["cats", 1]}, r"classes: expected a list of texts, found \['cats', 1\]"),
        ({"image": None}, "image: expected a JSON object, found None"),
    ],
)
def test_what_is_no_fingerprint_is_refused(tmp_path, value, message):
    with pytest.raises(CatdogError, match=f"fingerprint: {message}"):
        Fingerprint.from_json(value)
    sealed.write_sealed_json(tmp_path / "manifest.json", {"format": 1, "fingerprint": value})
    with pytest.raises(CatdogError, match=rf"manifest.json: fingerprint: {message}\. Extract again\."):
        FeatureCache.open(tmp_path)


def test_a_head_of_a_spoiled_fingerprint_is_refused(tmp_path):
    published = ARTIFACTS / "default" / "head.safetensors"
    with safetensors.safe_open(published, framework="numpy") as file:
        described = json.loads(file.metadata()["head"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    described["fingerprint"]["views"] = 2
    path = tmp_path / "head.safetensors"
    path.write_bytes(safetensors.numpy.save(tensors, {"head": json.dumps(described)}))
    with pytest.raises(
        CatdogError, match="expected a head of `catdog train`, found: fingerprint: views: expected a list"
    ):
        head.load(path)
