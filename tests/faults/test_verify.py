"""One flipped bit, anywhere in what was written, is found and named; and only what is damaged is computed again."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import blocks, injector
from helpers.figures import record
from onnx import TensorProto, helper

from catdog_jax import cli, stored_files
from catdog_jax.backbone import vgg16, weights
from catdog_jax.commands import extract, verify
from catdog_jax.config import ExtractConfig, VerifyConfig
from catdog_jax.errors import CatdogError
from catdog_jax.features import extractor
from catdog_jax.files import atomic, sealed
from catdog_jax.heads import head
from catdog_jax.heads.run_directory import RunDirectory
from catdog_jax.reporting import html

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def written(small_photos, tmp_path_factory) -> Path:
    """A feature cache, a run with a cache of its own, weights, an audit and a Triton model, small ones, as they are written."""
    root = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractor, "Extractor", blocks.Blocks)
        patch.setattr(weights, "load", lambda *_: weights.Weights({}, "torch", "0" * 64, "stand-in"))
        extract.extract(ExtractConfig(data=str(small_photos), out=root / "cache", shard_size=1, workers=1))
    rng = np.random.default_rng(0)
    injector.finish_training(root, root / "run", swept=True)
    shutil.copytree(root / "cache", root / "run" / "features")
    run = RunDirectory(root / "run")
    for split in ("test", "validation"):
        sealed.write_sealed_json(
            run.metrics(split), {"format": 1, "n": 9, "head_sha256": digest(run), "own_features": True}
        )
        atomic.write_bytes(run.report(split), html.with_seal(page()))
    few = {layer.name: {"kernel": rng.normal(size=9).astype(np.float32)} for layer in vgg16.LAYERS}
    weights.save(root / "vgg16.safetensors", weights.Weights(few, "torch", "0" * 64, "some"))
    atomic.write_bytes(run.model(), model(digest(run)))
    judged = {"model": "model.onnx", "sha256": atomic.sha256_of_file(run.model())}
    sealed.write_sealed_json(run.comparison, {"n": 9, "models": [judged]})
    sealed.write_sealed_json(root / "audit" / "audit.json", {"format": 1, "notes": []})
    atomic.write_bytes(root / "audit" / "audit.html", html.with_seal(page()))
    injector.write_triton(root, root / "triton")
    return root


def digest(run: RunDirectory) -> str:
    return head.digest(head.load(run.head).params)


def page() -> str:
    """With what a photo could be called."""
    return html.render("base.html.j2", title=f"{sealed.UNSEALED}/catdog-seal:.jpg")


def model(head_sha256: str) -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "small", ends[:1], ends[1:])
    made = helper.make_model(graph)
    helper.set_model_props(made, {"classes": "[]", "head_sha256": head_sha256, "seal": sealed.UNSEALED})
    return sealed.seal(made.SerializeToString(deterministic=True))


def paths(root: Path) -> list[str]:
    return [str(root / name) for name in ("cache", "run", "vgg16.safetensors", "audit", "triton")]


def test_what_is_whole_is_told_in_a_table(written, capsys):
    assert cli.main(["verify", *paths(written)]) == 0
    shown, notes = capsys.readouterr()
    assert "as it was written" not in notes
    assert "6 shards" in shown.replace("│", " ").replace("  ", " ").replace("  ", " ")
    assert all(word not in shown for word in ("altered", "not checked", "no seal", "another"))
    assert f"{written / 'run' / 'features'}" in shown
    onnx.load(written / "run" / "model.onnx")  # a seal leaves the file as readable as it was
    assert head.load(written / "run" / "head.safetensors").classes == ("cats", "dogs")


def test_the_published_files_are_whole():
    assert cli.main(["verify", str(ROOT / "artifacts" / "default"), str(ROOT / "artifacts" / "features")]) == 0


def test_a_flipped_bit_is_found_wherever_it_is(written, tmp_path, capsys, request):
    long = request.config.getoption("--long")
    found = 0
    rng = np.random.default_rng(0)
    files = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    suffixes = {".npy", ".json", ".safetensors", ".onnx", ".html", ".csv", ".png", ".pbtxt", ".txt"}
    assert {path.suffix for path in files} == suffixes
    copy = tmp_path / "copy"
    shutil.copytree(written, copy)
    for name in files:
        whole = (copy / name).read_bytes()
        places = {0, len(whole) - 1, *rng.integers(0, len(whole), 200 if long else 2).tolist()}
        if (mark := whole.find(b"catdog-seal:")) > 0:  # a flip that spoils a seal is not one that never was
            places |= {mark + 2, mark + 9, mark + 40}
        if (mark := whole.find(b'"sha256"')) > 0:
            places |= {mark + 3, mark + 20}
        for place in sorted(places):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << int(rng.integers(8))
            (copy / name).write_bytes(flipped)
            assert verify.verify(VerifyConfig((copy / name.parts[0],))) == 1, (name, place)
            (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("altered: ")]
            assert str(copy / name) in line
            found += 1
        (copy / name).write_bytes(whole)
    record("bits flipped", {"files": len(files), "flipped": found, "found and named": found}, long)


def said(root: Path, capsys: pytest.CaptureFixture[str], status: int) -> str:
    assert cli.main(["verify", *paths(root)]) == status
    return capsys.readouterr().out


def test_what_is_missing_or_too_many_is_named(written, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(written, copy)
    gone = [copy / name for name in ("run/history.csv", "run/sweep.png", "triton/catdog/labels.txt")]
    gone.append(next((copy / "run" / "features").glob("*.labels.npy")))
    for path in gone:
        path.unlink()
    (copy / "triton" / "catdog" / "2").mkdir()
    (copy / "triton" / "catdog" / "2" / "model.onnx").write_bytes(b"served by Triton in the place of the other")
    shown = said(copy, capsys, 1)
    assert all(f"altered: {path}: expected" in shown for path in gone)
    assert f"altered: {copy}/triton/catdog/2/model.onnx: expected the files that" in shown
    assert "found one more. Remove it." in shown


def test_what_an_older_version_wrote_and_what_is_the_users_is_said_and_is_no_fault(written, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(written, copy)
    run = RunDirectory(copy / "run")
    for path in (run.metrics(), run.settings, copy / "audit" / "audit.json"):
        value = json.loads(path.read_text())
        path.write_text(json.dumps({name: one for name, one in value.items() if name != "sha256"}))
    run.report().write_text("<!doctype html><p>catdog_jax, " + "0123456789abcdef" * 4)
    for name in ("notes.txt", "my.html", "my.json", ".hidden", *(f"{i}.txt" for i in range(9))):
        (run.path / name).write_text("mine")
    os.mkfifo(run.path / "pipe.html")
    (run.path / "again").symlink_to(run.path)  # a link that leads around
    shown = said(copy, capsys, 0)
    assert f"no seal: written by an older version: {run.path}: config.json, metrics.json, report.html\n" in shown
    assert f"no seal: written by an older version: {copy / 'audit'}: audit.json\n" in shown
    assert (
        f"not checked: no hash of it is known: {run.path}: .hidden, 0.txt, 1.txt, 2.txt, 3.txt and 12 more\n" in shown
    )
    value = json.loads(run.metrics().read_text())
    run.metrics().write_text(json.dumps(value | {"head_sha256": "0" * 64, "own_features": True}))
    assert f"of another head: {run.metrics()}: expected a file of the head beside it" in said(copy, capsys, 1)


def test_files_of_another_head_are_named(written, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(written, copy)
    run = RunDirectory(copy / "run")
    (run.path / "mine.onnx").write_bytes(model("1" * 64))
    shown = said(copy, capsys, 0)
    assert f"whole, but of another head than the one beside it: {run.path}: mine.onnx" in shown
    run.model().write_bytes(model("1" * 64))
    shown = said(copy, capsys, 1)
    assert f"of another head: {run.model()}: expected a file of the head beside it" in shown
    assert f"whole, but it judged another file than the one beside it: {run.path}: models.json" in shown
    fitted = head.load(run.head)
    other = {"output": {"kernel": fitted.params["output"]["kernel"] + 1, "bias": fitted.params["output"]["bias"]}}
    dataclasses.replace(fitted, params=other).save(run.head)
    shown = said(copy, capsys, 1)
    assert {line.split(": ")[1] for line in shown.splitlines() if line.startswith("of another head: ")} == {
        str(path) for path in (run.settings, run.metrics(), run.metrics("validation"), run.model())
    }


@pytest.mark.parametrize("name", ["run/metrics.json", "run/report.html", "run/model.onnx", "audit/audit.json"])
def test_a_file_can_be_verified_alone(written, name, capsys):
    assert cli.main(["verify", str(written / name)]) == 0
    assert name in capsys.readouterr().out


def test_what_cannot_be_verified_is_refused(tmp_path, capsys):
    for path, found in ((tmp_path / "none", "found nothing. Check"), (tmp_path, "found nothing of these. Check")):
        assert cli.main(["verify", str(path)]) == 1
        assert (
            f"{path}: expected a feature cache, a run directory, another folder or file that `catdog` writes, {found}"
            in (capsys.readouterr().err)
        )
    (tmp_path / "old.onnx").write_bytes(b"no seal")
    assert cli.main(["verify", str(tmp_path / "old.onnx")]) == 1
    assert "expected one seal, found none: it is altered, or of an older version" in capsys.readouterr().out


def test_only_the_damaged_shard_is_computed_again(written, small_photos, tmp_path, monkeypatch):
    monkeypatch.setattr(extractor, "Extractor", blocks.Blocks)
    monkeypatch.setattr(weights, "load", lambda *_: weights.Weights({}, "torch", "0" * 64, "stand-in"))
    copy = tmp_path / "cache"
    shutil.copytree(written / "cache", copy)
    whole = {path.name: path.read_bytes() for path in copy.iterdir()}
    damaged = sorted(copy.glob("*.features.npy"))[2]
    damaged.write_bytes(whole[damaged.name][:-1] + bytes([whole[damaged.name][-1] ^ 4]))
    for path in copy.iterdir():
        os.utime(path, ns=(1, 1))
    extract.extract(ExtractConfig(data=str(small_photos), out=copy, shard_size=1, workers=1))
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == whole
    shard = damaged.name.partition(".")[0]
    rewritten = {path.name for path in copy.iterdir() if path.stat().st_mtime_ns != 1}
    assert rewritten - {"manifest.json"} == {name for name in whole if name.startswith(shard)}


def test_a_new_kind_of_file_is_one_entry(tmp_path, capsys, monkeypatch):
    def whole(file: Path, head_sha256: str | None) -> int:
        if file.read_bytes() != b"toy":
            raise CatdogError(f"{file}: expected a toy, found none.")
        return 3

    monkeypatch.setitem(stored_files.FILES, ".toy", whole)
    (tmp_path / "one.toy").write_bytes(b"toy")
    assert cli.main(["verify", str(tmp_path)]) == 0
    (tmp_path / "two.toy").write_bytes(b"no toy")
    assert cli.main(["verify", str(tmp_path)]) == 1
    assert f"altered: {tmp_path / 'two.toy'}: expected a toy, found none." in capsys.readouterr().out
