"""A feature cache in a bucket: the same bytes as on a disk, the same head from them, and errors in one line."""

import itertools
import json
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from helpers import blocks
from PIL import Image

from catdog_jax import cli
from catdog_jax.backbone import weights
from catdog_jax.config import TrainConfig
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.features import extractor
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import atomic, buckets
from catdog_jax.files.buckets import Bucket, UnreachableError
from catdog_jax.photos import sources

pytestmark = pytest.mark.lenient_types  # Optax

CACHE = "memory://bucket/some [odd] place/cache"


@pytest.fixture
def memory(monkeypatch):
    """A bucket in memory under the scheme memory://, and a stand-in for the network."""
    monkeypatch.setitem(buckets.DRIVERS, "memory", "fsspec")
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    monkeypatch.setattr(extractor, "Extractor", blocks.Blocks)
    monkeypatch.setattr(weights, "load", lambda *_: weights.Weights({}, "torch", "0" * 64, "stand-in"))
    return MemoryFileSystem


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for seed, (split, kind, i) in enumerate(
        itertools.product(("train", "validation", "test"), ("cats", "dogs"), range(3))
    ):
        (root / split / kind).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(root / split / kind / f"{i}.png")
    return root


def extract(photos: Path, out: object) -> int:
    return cli.main(["extract", "--data", str(photos), "--out", str(out), "--shard-size", "4", "--workers", "1"])


def objects() -> dict[str, bytes]:
    files = fsspec.filesystem("memory")
    return {name.rpartition("/")[2]: files.cat_file(name) for name in files.find(CACHE)}


def without_source(manifest: bytes) -> dict[str, object]:
    return {name: value for name, value in json.loads(manifest).items() if name not in ("source", "sha256")}


def test_the_objects_are_the_files_of_a_disk(memory, photos, tmp_path):
    assert extract(photos, tmp_path / "cache") == 0
    assert extract(photos, CACHE) == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()}
    found = objects()
    assert found.keys() == files.keys()
    assert without_source(found.pop("manifest.json")) == without_source(files.pop("manifest.json"))
    assert found == files
    assert FeatureCache.open(Bucket(CACHE)).source == str(photos)  # absolute, as seen from a bucket


def test_the_stages_after_it_read_a_bucket_as_a_disk(memory, photos, tmp_path, capsys):
    heads, metrics = [], []
    for out, run in ((tmp_path / "cache", tmp_path / "a"), (CACHE, tmp_path / "b")):
        assert extract(photos, out) == 0
        assert cli.main(["train", "--features", str(out), "--out", str(run), "--epochs", "2"]) == 0
        assert cli.main(["evaluate", "--run", str(run), "--bootstrap", "10"]) == 0
        heads.append((run / "head.safetensors").read_bytes())
        metrics.append((run / "metrics.json").read_bytes())
    assert heads[0] == heads[1]
    assert metrics[0] == metrics[1]
    assert json.loads((tmp_path / "b" / "config.json").read_text())["features"] == CACHE
    assert cli.main(["evaluate", "--run", str(tmp_path / "a"), "--features", CACHE, "--bootstrap", "10"]) == 0
    assert CACHE in (tmp_path / "a" / "report.html").read_text().replace("<wbr>", "")


def test_the_photos_of_the_training_are_found_through_the_bucket(memory, photos, tmp_path):
    from catdog_jax.deployment import parity
    from catdog_jax.heads.run_directory import RunDirectory

    assert extract(photos, CACHE) == 0
    assert cli.main(["train", "--features", CACHE, "--out", str(tmp_path), "--epochs", "1"]) == 0
    assert parity.photos_at_hand(RunDirectory(tmp_path), ())[0].source == str(photos)


def test_a_flipped_bit_is_found_and_only_its_shard_put_again(memory, photos, capsys, monkeypatch):
    assert extract(photos, CACHE) == 0
    whole = objects()
    assert cli.main(["verify", CACHE]) == 0
    assert "6 shards" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    files = fsspec.filesystem("memory")
    for name, content in whole.items():
        for place in (0, len(content) // 2, len(content) - 1):
            flipped = bytearray(content)
            flipped[place] ^= 4
            files.pipe_file(f"{CACHE}/{name}", bytes(flipped))
            assert cli.main(["verify", CACHE]) == 1, (name, place)
            assert f"altered: {CACHE}/{name}" in capsys.readouterr().out
        files.pipe_file(f"{CACHE}/{name}", content)
    files.pipe_file(f"{CACHE}/test-00000-of-00002.features.npy", whole["test-00000-of-00002.features.npy"][:-1])
    put = []
    write = memory.pipe_file
    monkeypatch.setattr(memory, "pipe_file", lambda self, path, *rest: put.append(path) or write(self, path, *rest))
    assert extract(photos, CACHE) == 0
    assert objects() == whole
    assert {path.removeprefix(f"{CACHE}/").partition(".")[0] for path in put} == {"test-00000-of-00002", "manifest"}


def test_another_fingerprint_is_refused_there_too(memory, photos, capsys):
    assert extract(photos, CACHE) == 0
    before = objects()
    assert cli.main(["extract", "--data", str(photos), "--out", CACHE, "--pool", "max"]) == 1
    assert "pool is 'avg', expected 'max'" in capsys.readouterr().err
    assert objects() == before


def test_two_at_once_do_the_work_twice_into_the_same_objects(memory, photos, monkeypatch):
    """There is no lock in a bucket: while one extracts, another does, from its first shard to its manifest."""
    assert extract(photos, CACHE) == 0
    whole = objects()
    memory.store.clear()
    write, inside = memory.pipe_file, []

    def put(self, path: str, *rest) -> None:
        write(self, path, *rest)
        if not inside:
            inside.append(path)
            assert extract(photos, CACHE) == 0

    monkeypatch.setattr(memory, "pipe_file", put)
    assert extract(photos, CACHE) == 0
    assert inside
    assert objects() == whole


class Foreign(Exception):
    """As botocore, google.auth and aiohttp have them: no OSError, and more than a line."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Foreign("Unable to locate credentials\nand more"), "Unable to locate credentials"),
        (PermissionError("Access Denied."), "Access Denied"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_a_bucket_out_of_reach_is_one_line_before_the_work(
    memory, photos, tmp_path, capsys, monkeypatch, error, reason
):
    def fail(*_, **__):
        raise error

    for method in ("info", "ls", "cat_file", "pipe_file"):
        monkeypatch.setattr(memory, method, fail)
    monkeypatch.setattr(sources, "load", fail)  # not reached
    advice = "Check the bucket, the credentials and the network.\n"
    assert extract(photos, CACHE) == 1
    assert capsys.readouterr().err == f"error: {CACHE}: cannot be read: {reason}. {advice}"
    assert cli.main(["train", "--features", CACHE, "--out", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == f"error: {CACHE}/manifest.json: cannot be read: {reason}. {advice}"
    with pytest.raises(UnreachableError, match=f"x: cannot be written: {reason}"):
        atomic.write_bytes(Bucket("memory://bucket/x"), b"x")


def test_a_shard_that_cannot_be_read_now_is_neither_computed_again_nor_altered(memory, photos, capsys, monkeypatch):
    assert extract(photos, CACHE) == 0
    read = memory.cat_file

    def fail(self, path, *rest, **options):
        if path.endswith(".npy"):
            raise Foreign("503 Slow Down")
        return read(self, path, *rest, **options)

    monkeypatch.setattr(memory, "cat_file", fail)
    assert extract(photos, CACHE) == 1
    assert "features.npy: cannot be read: 503 Slow Down." in capsys.readouterr().err
    assert cli.main(["verify", CACHE]) == 1
    shown, notes = capsys.readouterr()
    assert f"error: {CACHE}/" in notes
    assert "altered" not in shown + notes


def test_no_such_bucket_is_told_by_the_first_put(memory, photos, capsys, monkeypatch):
    def fail(*_):
        raise FileNotFoundError("The specified bucket does not exist")

    monkeypatch.setattr(memory, "pipe_file", fail)
    assert extract(photos, CACHE) == 1
    assert "cannot be written: there is no such bucket. Check the bucket, the credentials" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["foo://bucket/x", "file:///tmp/x", "https://example.org/x", "s3://", "gs:///x"])
def test_what_is_no_bucket_is_wrong_usage(url, capsys):
    assert cli.main(["verify", url]) == 2
    expected = "expected a path or one of s3://BUCKET/…, gs://BUCKET/…, az://BUCKET/…, found another URL. Check it.\n"
    assert capsys.readouterr().err == f"error: {url}: {expected}"


@pytest.mark.parametrize(("scheme", "package"), list(buckets.DRIVERS.items()))
def test_a_missing_driver_is_named_with_the_command(scheme, package, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["train", "--features", f"{scheme}://bucket/x"]) == 2
    assert capsys.readouterr().err == (
        f"error: {scheme}://bucket/x/manifest.json: expected the package {package}, found that it is not installed. "
        f"Run: pip install {package}.\n"
    )


def test_missing_objects_are_missing_files(memory):
    with pytest.raises(CatdogError, match=r"manifest\.json: expected a feature manifest .*, found no file"):
        FeatureCache.open(Bucket(CACHE))
    assert not Bucket(CACHE).exists()
    assert Bucket(CACHE).glob("*") == []


def test_the_command_line_takes_a_url_or_a_path():
    for text, expected in (("s3://b/x/", Bucket("s3://b/x")), ("a//b/", Path("a/b")), ("s3:/b", Path("s3:/b"))):
        _, settings = cli._parse(["train", "--features", text])
        assert settings.features == expected
    _, settings = cli._parse(["verify", "gs://b/x", "run"])
    assert settings.paths == (Bucket("gs://b/x"), Path("run"))
    assert cli._parse(["train"])[1] == TrainConfig()


def test_what_a_directory_remembers_is_found_from_it(tmp_path):
    bucket, run, cache = Bucket("s3://b/x"), tmp_path / "run", tmp_path / "cache"
    assert buckets.seen_from(run, cache) == "../cache"
    for directory, target in ((run, cache), (run, bucket), (bucket, cache), (bucket, Bucket("gs://c/y"))):
        assert buckets.found_from(directory, buckets.seen_from(directory, target)) == target


def test_the_installation_for_predict_needs_no_fsspec(monkeypatch):
    """With only what `pip install catdog-jax` brings, the scheme is known and the package named."""
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UsageError, match="expected the package s3fs, found that it is not installed"):
        Bucket("s3://b/x").exists()
