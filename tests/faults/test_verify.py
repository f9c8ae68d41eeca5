"""One flipped bit, anywhere in what was written, is found and named; and only what is damaged is computed again."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from catdog_jax import cli, features, head, storage, vgg16, weights
from catdog_jax.config import ExtractConfig

sys.path.insert(0, str(Path(__file__).parent))

import blocks
from test_commits import record

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def written(small_photos, tmp_path_factory) -> Path:
    """A feature cache, a head, weights and a model, small ones, as the stages write them."""
    root = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "Extractor", blocks.Blocks)
        patch.setattr(weights, "load", lambda *_: weights.Weights({}, "torch", "0" * 64, "stand-in"))
        features.extract(ExtractConfig(str(small_photos), root / "cache", shard_size=1, workers=1))
    rng = np.random.default_rng(0)
    params = {"output": {"kernel": rng.normal(size=(512, 1)).astype(np.float32), "bias": np.zeros(1, np.float32)}}
    head.save(root / "run" / "head.safetensors", head.FittedHead("avg", params, ("cats", "dogs"), {"seed": 1}, {}))
    few = {layer.name: {"kernel": rng.normal(size=9).astype(np.float32)} for layer in vgg16.LAYERS}
    weights.save(root / "vgg16.safetensors", weights.Weights(few, "torch", "0" * 64, "some"))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "small", ends[:1], ends[1:])
    model = helper.make_model(graph)
    helper.set_model_props(model, {"classes": "[]", "seal": storage.UNSEALED})
    storage.write_bytes(root / "run" / "model.onnx", storage.seal(model.SerializeToString(deterministic=True)))
    return root


def paths(root: Path) -> list[str]:
    return [str(root / "cache"), str(root / "run"), str(root / "vgg16.safetensors")]


def test_what_is_whole_is_told_in_a_table(written, capsys):
    assert cli.main(["verify", *paths(written)]) == 0
    shown, notes = capsys.readouterr()
    assert "as it was written" not in notes
    assert "6 shards" in shown.replace("│", " ").replace("  ", " ").replace("  ", " ")
    assert "altered" not in shown
    onnx.load(written / "run" / "model.onnx")  # a seal leaves the file as readable as it was
    assert head.load(written / "run" / "head.safetensors").classes == ("cats", "dogs")


def test_the_published_files_are_whole():
    assert cli.main(["verify", str(ROOT / "artifacts" / "default"), str(ROOT / "artifacts" / "features")]) == 0


def test_a_flipped_bit_is_found_wherever_it_is(written, tmp_path, capsys, request):
    long = request.config.getoption("--long")
    found = 0
    rng = np.random.default_rng(0)
    files = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file() and path.name[0] != ".")
    assert {path.suffix for path in files} == {".npy", ".json", ".safetensors", ".onnx"}
    copy = tmp_path / "copy"
    shutil.copytree(written, copy)
    for name in files:
        whole = (copy / name).read_bytes()
        places = {0, len(whole) - 1, *rng.integers(0, len(whole), 200 if long else 12).tolist()}
        for place in sorted(places):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << int(rng.integers(8))
            (copy / name).write_bytes(flipped)
            assert cli.main(["verify", *paths(copy)]) == 1, (name, place)
            (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("altered: ")]
            assert str(copy / name) in line
            found += 1
        (copy / name).write_bytes(whole)
    (copy / files[0]).unlink()
    assert cli.main(["verify", *paths(copy)]) == 1
    record("bits flipped", {"files": len(files), "flipped": found, "found and named": found}, long)


def test_what_cannot_be_verified_is_refused(tmp_path, capsys):
    for path, found in ((tmp_path / "none", "found nothing. Check"), (tmp_path, "found nothing of these. Check")):
        assert cli.main(["verify", str(path)]) == 1
        assert f"{path}: expected a feature cache, a run directory, or a .safetensors or .onnx file, {found}" in (
            capsys.readouterr().err
        )
    (tmp_path / "old.onnx").write_bytes(b"no seal")
    assert cli.main(["verify", str(tmp_path / "old.onnx")]) == 1
    assert "expected one seal, found none: it is altered, or of an older version" in capsys.readouterr().out


def test_only_the_damaged_shard_is_computed_again(written, small_photos, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "Extractor", blocks.Blocks)
    monkeypatch.setattr(weights, "load", lambda *_: weights.Weights({}, "torch", "0" * 64, "stand-in"))
    copy = tmp_path / "cache"
    shutil.copytree(written / "cache", copy)
    whole = {path.name: path.read_bytes() for path in copy.iterdir()}
    damaged = sorted(copy.glob("*.features.npy"))[2]
    damaged.write_bytes(whole[damaged.name][:-1] + bytes([whole[damaged.name][-1] ^ 4]))
    for path in copy.iterdir():
        os.utime(path, ns=(1, 1))
    features.extract(ExtractConfig(str(small_photos), copy, shard_size=1, workers=1))
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == whole
    shard = damaged.name.partition(".")[0]
    rewritten = {path.name for path in copy.iterdir() if path.stat().st_mtime_ns != 1}
    assert rewritten - {"manifest.json"} == {name for name in whole if name.startswith(shard)}
