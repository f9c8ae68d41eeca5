"""Extraction and the cache: against NumPy, with a stand-in for the network where only the files matter."""

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from helpers.blocks import Blocks, blocks
from PIL import Image

from catdog_jax import cli, console
from catdog_jax.backbone import weights
from catdog_jax.commands import extract
from catdog_jax.config import ExtractConfig
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.features import batches, extraction
from catdog_jax.features import extractor as extractors
from catdog_jax.features import shards as shard_files
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import atomic, sealed
from catdog_jax.photos import decoding, decoding_pool, sources
from catdog_jax.photos.fingerprint import Fingerprint, FingerprintError
from catdog_jax.photos.recipe import DEFAULT, FIRST, DecodingRecipe


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path) -> Path:
    """66 photos: 21 + 7 + 5 of each class."""
    root = tmp_path / "photos"
    seed = 0
    for split, count in (("train", 21), ("validation", 7), ("test", 5)):
        for kind in ("cats", "dogs"):
            for i in range(count):
                draw(root / split / kind / f"{i}.png", seed := seed + 1)
    return root


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(extractors, "Extractor", Blocks)
    monkeypatch.setattr(weights, "load", lambda *_: weights.Weights({}, "torch", "0" * 64, "stand-in"))


def config(photos: Path, tmp_path: Path, **options) -> ExtractConfig:
    return ExtractConfig(**{"data": str(photos), "out": tmp_path / "cache", "shard_size": 10, **options})


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.mark.parametrize("pool", ["avg", "avg+max", "none"])
def test_every_photo_has_its_row(photos, tmp_path, stand_in, pool):
    found = extract.extract(config(photos, tmp_path, pool=pool, views=("original", "mirror")))
    dataset = sources.load(str(photos))
    assert found.classes == ("cats", "dogs")
    for split in sources.SPLITS:
        records = dataset.split(split)
        assert found.rows(split) == len(records)
        assert found.ids(split) == [record.id for record in records]
        assert found.labels(split).tolist() == [record.label for record in records]
        pixels = np.stack([decoding.decode(record.read(), DEFAULT) for record in records])
        wanted = "max" if pool == "none" else pool
        expected = np.stack([blocks(view, wanted) for view in (pixels, pixels[:, :, ::-1])], axis=1)
        np.testing.assert_allclose(found.load(split, wanted), expected, rtol=1e-3)


def test_a_cache_can_be_read_with_numpy_alone(photos, tmp_path, stand_in):
    extract.extract(config(photos, tmp_path))
    manifest = json.loads((tmp_path / "cache" / "manifest.json").read_text())
    names = [shard["name"] for shard in manifest["splits"]["train"]["shards"]]
    assert names == [f"train-{i:05d}-of-00005" for i in range(5)]
    x = np.concatenate([np.load(tmp_path / "cache" / f"{name}.features.npy") for name in names])
    y = np.concatenate([np.load(tmp_path / "cache" / f"{name}.labels.npy") for name in names])
    assert x.shape == (42, 1, 512)
    assert x.dtype == np.float16
    assert y.dtype == np.int8
    assert y.sum() == 21
    sidecar = json.loads((tmp_path / "cache" / f"{names[0]}.json").read_text())
    assert sidecar["source_sha256"][3] == atomic.sha256((photos / sidecar["ids"][3]).read_bytes())
    assert sidecar["arrays"]["features"]["sha256"] == atomic.sha256_of_file(
        tmp_path / "cache" / f"{names[0]}.features.npy"
    )


def test_a_bad_photo_is_listed_and_never_replaced(photos, tmp_path, stand_in, capsys):
    bad = photos / "train" / "cats" / "3.png"
    bad.write_bytes(bad.read_bytes()[:200])
    found = extract.extract(config(photos, tmp_path))
    assert found.rows("train") == 41
    assert "train/cats/3.png" not in found.ids("train")
    (skipped,) = found.skipped("train")
    assert skipped["id"] == "train/cats/3.png"
    assert "truncated" in skipped["reason"]
    assert "train/cats/3.png" in capsys.readouterr().err
    assert found.load("train", "avg").shape == (41, 1, 512)


@pytest.mark.parametrize("first", [4096, 0])
def test_too_many_bad_photos_are_an_error_that_names_some(photos, tmp_path, stand_in, monkeypatch, first):
    """Of a small data set before the network computes anything; of a large one as soon as shards show it."""
    monkeypatch.setattr(extraction, "_DECODED_FIRST", first)
    for i in range(4):
        (photos / "train" / "dogs" / f"{i}.png").write_text("<html>")
    for _ in range(2):  # and when the same command runs again, over the shards that it finished
        with pytest.raises(
            CatdogError, match=r"train split: expected at most 5% of 42 photos to be unreadable"
        ) as error:
            extract.extract(config(photos, tmp_path))
        assert re.search(
            "found 4: 'train/dogs/.*HTML.*; and 1 more. .*exclude exclude.txt and a new --out", str(error.value)
        )
    assert not (tmp_path / "cache" / "manifest.json").exists()
    assert bool(list((tmp_path / "cache").glob("*.npy"))) == (not first)


def test_the_advice_about_bad_photos_can_be_followed(photos, tmp_path, stand_in, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in photos.rglob("*.png"):  # large enough for an audit
        with Image.open(path) as image:
            image.resize((90, 60), Image.Resampling.NEAREST).save(path)
    for i in range(4):
        (photos / "train" / "dogs" / f"{i}.png").write_text("<html>")
    with pytest.raises(CatdogError) as error:
        extract.extract(config(photos, tmp_path))
    command = re.search("`catdog (audit .*?)`", str(error.value))[1].split()
    assert cli.main(command) == 0
    found = extract.extract(config(photos, tmp_path, exclude=Path("exclude.txt"), out=tmp_path / "new"))
    assert found.rows("train") == 38
    assert not found.skipped("train")


def test_a_bad_photo_of_a_small_split_is_left_out(photos, tmp_path, stand_in):
    """One of 10 is over 5 %, but one photo is no reason to stop."""
    (photos / "test" / "dogs" / "0.png").write_text("<html>")
    found = extract.extract(config(photos, tmp_path))
    assert found.rows("test") == 9
    assert [item["id"] for item in found.skipped("test")] == ["test/dogs/0.png"]


@pytest.mark.parametrize("first", [4096, 0])
def test_a_split_that_lost_a_class_is_an_error_that_names_its_files(photos, tmp_path, stand_in, monkeypatch, first):
    monkeypatch.setattr(extraction, "_DECODED_FIRST", first)
    for path in list((photos / "test" / "dogs").iterdir())[1:]:
        path.unlink()
    (only,) = (photos / "test" / "dogs").iterdir()
    only.write_bytes(b"")
    with pytest.raises(
        CatdogError, match=r"test split: expected photos of 'dogs' that can be read, found none: "
    ) as error:
        extract.extract(config(photos, tmp_path))
    assert f"'test/dogs/{only.name}': expected a photo, found an empty file. Replace" in str(error.value)
    assert bool(list((tmp_path / "cache").glob("*.npy"))) == (not first)


def test_the_manifest_lists_what_is_left_out(photos, tmp_path, stand_in, capsys):
    before = extract.extract(config(photos, tmp_path)).manifest
    assert "left_out" not in before
    (photos / "train" / "cats" / "phone.jxl").write_bytes(b"\xff\x0a\xfa\x7f")
    after = extract.extract(config(photos, tmp_path))  # the same cache: what is not taken is no input
    left_out = [{"kind": ".jxl", "count": 1, "pictures": 1, "example": "train/cats/phone.jxl"}]
    assert after.manifest["left_out"] == left_out
    assert {**after.manifest, "left_out": 0, "sha256": 0} == {**before, "left_out": 0, "sha256": 0}
    assert (
        "left out: 1 .jxl; 1 of them look like pictures, for example 'train/cats/phone.jxl'" in capsys.readouterr().err
    )


def test_a_shard_without_a_readable_photo_is_kept_empty(photos, tmp_path, stand_in):
    """The last shard of the training split is one photo; it may be the bad one."""
    last = sources.load(str(photos)).split("train")[-1]
    (photos / last.id).write_bytes(b"")
    found = extract.extract(config(photos, tmp_path, shard_size=41, pool="none"))
    assert found.rows("train") == 41
    assert found.load("train", "avg+max").shape == (41, 1, 1024)


def test_another_fingerprint_is_refused_and_the_field_named(photos, tmp_path, stand_in):
    extract.extract(config(photos, tmp_path))
    before = contents(tmp_path / "cache")
    others = (
        ({"pool": "max"}, "pool is 'avg', expected 'max'"),
        ({"dtype": "float32"}, "dtype is 'float16'"),
        ({"views": ("original", "mirror")}, "views is"),
    )
    for options, field in others:
        with pytest.raises(CatdogError, match=field):
            extract.extract(config(photos, tmp_path, **options))
    draw(photos / "train" / "cats" / "new.png", 999)
    with pytest.raises(
        CatdogError, match="pool is 'avg', expected 'max'"
    ):  # not the number of photos, which may change
        extract.extract(config(photos, tmp_path, pool="max"))
    assert contents(tmp_path / "cache") == before


@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "sidecar", "labels"])
def test_a_damaged_shard_is_found_and_only_it_computed_again(photos, tmp_path, stand_in, damage, monkeypatch):
    found = extract.extract(config(photos, tmp_path))
    before = contents(tmp_path / "cache")
    name = "train-00001-of-00005"
    target = (
        tmp_path
        / "cache"
        / (f"{name}.json" if damage == "sidecar" else f"{name}.{'labels' if damage == 'labels' else 'features'}.npy")
    )
    content = bytearray(target.read_bytes())
    if damage == "remove":
        target.unlink()
    else:
        content[-9] ^= 1
        target.write_bytes(content[:-50] if damage == "cut" else content)
    with pytest.raises(CatdogError, match=r"catdog extract. again") as error:
        found.load("train", "avg"), found.labels("train"), found.ids("train")
    assert name in str(error.value)
    computed = []
    compute = extraction.compute_shards
    monkeypatch.setattr(
        extraction, "compute_shards", lambda shards, *rest: computed.extend(shards) or compute(shards, *rest)
    )
    extract.extract(config(photos, tmp_path))
    assert [shard.name for shard in computed] == [name]
    assert contents(tmp_path / "cache") == before


def test_an_altered_or_missing_manifest_is_an_error(photos, tmp_path, stand_in):
    extract.extract(config(photos, tmp_path))
    manifest = tmp_path / "cache" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"avg"', '"max"'))
    with pytest.raises(CatdogError, match=r"manifest.json: expected .* with the sha256 of its contents, found another"):
        FeatureCache.open(tmp_path / "cache")
    manifest.unlink()
    with pytest.raises(
        CatdogError, match=r"expected a feature manifest \(of a finished `catdog extract`\), found no file"
    ):
        FeatureCache.open(tmp_path / "cache")


def test_a_cache_whose_class_names_are_no_text_is_refused(tmp_path):
    shard_files.write_manifest(tmp_path, "photos", [], Fingerprint(classes=("cats", "h\udc81nde")))
    with pytest.raises(CatdogError, match=r"expected classes named in UTF-8 .*h\\udc81nde.*Rename the folder"):
        FeatureCache.open(tmp_path)


def test_a_cache_says_which_pooling_it_cannot_give(photos, tmp_path, stand_in):
    found = extract.extract(config(photos, tmp_path))
    with pytest.raises(
        CatdogError, match=r"features that give pool 'none', found 'avg'\. Extract again with --pool none"
    ):
        found.load("train", "none")


def test_overflow_is_an_error_not_an_infinity(photos, tmp_path, stand_in, monkeypatch):
    monkeypatch.setattr(Blocks, "dispatch", lambda self, photos: np.full((4, 1, 512), 1e6, np.float32))
    with pytest.raises(CatdogError, match=r"overflow float16 or are NaN\. Use --dtype float32"):
        extract.extract(config(photos, tmp_path))


def test_a_full_disk_is_an_error_that_keeps_what_was_written(photos, tmp_path, stand_in, monkeypatch):
    uninterrupted = contents(extract.extract(config(photos, tmp_path, out=tmp_path / "whole")).path)
    fsync, calls = os.fsync, []

    def full_after_eight(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 8:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_after_eight)
    with pytest.raises(CatdogError, match="cannot be written: No space left on device"):
        extract.extract(config(photos, tmp_path))
    monkeypatch.setattr(os, "fsync", fsync)
    assert 0 < len(contents(tmp_path / "cache")) < len(uninterrupted)
    assert not list((tmp_path / "cache").glob("*.tmp"))
    extract.extract(config(photos, tmp_path))
    assert contents(tmp_path / "cache") == uninterrupted


KILLED = """
import os, signal, sys
from pathlib import Path
from helpers import blocks
from catdog_jax.commands import extract
from catdog_jax.config import ExtractConfig
blocks.stand_in()
real, renames = os.replace, [0]
def replace(source, target):
    renames[0] += 1
    if renames[0] == {kill_at} and {before}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
    if renames[0] == {kill_at}:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
extract.extract(ExtractConfig(data={data!r}, out=Path({out!r}), shard_size=10))
"""


@pytest.mark.parametrize(("kill_at", "before"), [(5, True), (9, False), (25, True)])
def test_a_killed_extraction_resumes_to_the_same_bytes(photos, tmp_path, stand_in, kill_at, before):
    """Killed between a shard's arrays, after a sidecar, and before the manifest: 8 shards of 3 files, then the manifest."""
    whole = extract.extract(config(photos, tmp_path, out=tmp_path / "whole"))
    script = KILLED.format(kill_at=kill_at, before=before, data=str(photos), out=str(tmp_path / "cache"))
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "cache" / "manifest.json").exists()
    with pytest.raises(CatdogError, match="found no file"):
        FeatureCache.open(tmp_path / "cache")
    extract.extract(config(photos, tmp_path))
    assert {n: b for n, b in contents(tmp_path / "cache").items() if not n.endswith(".tmp")} == contents(whole.path)


def test_the_time_left_of_a_resumed_run_counts_what_this_run_does(photos, tmp_path, stand_in, monkeypatch):
    """A second a batch of four on a clock of its own: what was there already is neither done at once nor left to do."""
    whole = extract.extract(config(photos, tmp_path)).path
    for sidecar in whole.glob("train-0000[1-4]*.json"):
        sidecar.unlink()
    clock, told, bars = [0.0], [], []

    def progress_bar(unit):
        bars.append(console.progress_bar(unit))
        bars[0].get_time = lambda: clock[0]
        return bars[0]

    class Timed(Blocks):
        def dispatch(self, pixels):
            clock[0] += 1
            (task,) = bars[0].tasks
            told.append((task.completed, task.speed, task.time_remaining))
            return super().dispatch(pixels)

    monkeypatch.setattr(extraction, "progress_bar", progress_bar)
    monkeypatch.setattr(extractors, "Extractor", Timed)
    extract.extract(config(photos, tmp_path))
    assert told[0] == (34, None, None)  # 10 + 14 + 10 of 66
    assert len(told) == 8  # 32 photos, of four shards
    known = [(completed, speed, left) for completed, speed, left in told if speed is not None]
    assert len(known) >= 4
    for completed, speed, left in known:
        assert 2 <= speed <= 4
        assert left == pytest.approx((66 - completed) / speed, abs=1)
    assert bars[0].finished


def test_options_out_of_range_are_wrong_usage(photos, tmp_path, stand_in):
    for options in ({"shard_size": 0}, {"batch_size": 0}, {"workers": 0}):
        with pytest.raises(UsageError, match="expected 1 or more"):
            extract.extract(config(photos, tmp_path, **options))
    with pytest.raises(UsageError, match="--decode-in: expected auto, threads or processes, found fibres"):
        extract.extract(config(photos, tmp_path, decode_in="fibres"))


def test_batches_go_on_over_the_ends_of_shards(photos, tmp_path, monkeypatch, stand_in):
    """66 photos in batches of 4: one is not full. In other batches the cache has the same bytes."""
    filled = []

    class Watched(Blocks):
        def dispatch(self, pixels):
            filled.append(int(pixels.any(axis=(1, 2, 3)).sum()))
            return super().dispatch(pixels)

    monkeypatch.setattr(extractors, "Extractor", Watched)
    before = contents(extract.extract(config(photos, tmp_path)).path)
    assert filled == [4] * 16 + [2]
    monkeypatch.setattr(Watched, "batch_size", 25)  # of three shards
    assert contents(extract.extract(config(photos, tmp_path, out=tmp_path / "other")).path) == before
    assert filled[17:] == [25, 25, 16]


def test_no_batch_depends_on_how_many_photos_there_are(photos, tmp_path, monkeypatch, stand_in):
    asked = []

    class Asked(Blocks):
        def __init__(self, pretrained, **options):
            asked.append(options["batch_size"])
            super().__init__(pretrained, **options)

    monkeypatch.setattr(extractors, "Extractor", Asked)
    extract.extract(config(photos, tmp_path, batch_size=1_000))
    assert asked == [1_000]  # the training split has 42: with other photos the batch stays the same


def test_what_is_taken_over_does_not_pile_up_behind_a_batch_that_is_not_full():
    """One photo to compute, then a thousand rows of an earlier cache: the first shards do not wait for the last."""
    pixels = np.full((224, 224, 3), 7, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    read, taken = [], np.full((1, 512), 3, np.float32)

    def record(number: int) -> sources.Record:
        return sources.Record(str(number), 0, "train", 0, lambda: read.append(number) or buffer.getvalue())

    parts = [batches.Shard(f"{at}", tuple(map(record, range(at, at + 10)))) for at in range(0, 1_000, 10)]
    known = dict.fromkeys(map(str, range(1, 1_000)), atomic.sha256(buffer.getvalue()))
    earlier = types.SimpleNamespace(row=lambda digest: taken)
    most, rows = 0, 0
    done = []
    for shard, found in batches.compute_shards(parts, Blocks(None), DEFAULT, 1, done.append, earlier, known):
        most = max(most, len(read) - rows)
        rows += len(found.ids)
        expected = [taken] * 10
        if shard.name == "0":
            expected[0] = blocks(pixels[None], "avg")
        np.testing.assert_array_equal(found.features[0], np.stack(expected))
    assert rows == 1_000
    assert sum(done) == 1
    assert most < 100


@pytest.mark.parametrize("as_files", [True, False])
def test_processes_give_the_bytes_of_threads(photos, tmp_path, stand_in, monkeypatch, as_files):
    bad = photos / "train" / "cats" / "3.png"
    bad.write_bytes(bad.read_bytes()[:200])
    dataset = sources.load_photos(photos)
    if not as_files:  # what only this process can read
        records = [dataclasses.replace(one, read=lambda one=one: one.read()) for one in dataset.records]
        dataset = dataclasses.replace(dataset, records=tuple(records))
    in_processes = []
    decoded = decoding_pool.decoded
    monkeypatch.setattr(decoding_pool, "decoded", lambda *args: in_processes.append(args[1:3]) or decoded(*args))
    found = [
        extraction.extract(dataset, tmp_path / way, shard_size=10, workers=2, decode_in=way)
        for way in ("threads", "processes")
    ]
    assert contents(found[0].path) == contents(found[1].path)
    assert in_processes == [(2, 64), (2, 12)]  # to see what can be decoded, and for the network


def test_processes_decode_where_an_accelerator_waits_for_many_photos(monkeypatch):
    monkeypatch.setattr(extraction, "cores", lambda: 16)
    assert not extraction.in_processes("auto", 100_000)  # the CPU computes slower than threads decode
    monkeypatch.setattr(extraction, "_on_cpu", lambda: False)
    assert extraction.in_processes("auto", 2_000)
    assert not extraction.in_processes("auto", 1_999)
    assert extraction.in_processes("processes", 1)
    assert not extraction.in_processes("threads", 100_000)
    monkeypatch.setattr(extraction, "cores", lambda: 1)
    assert not extraction.in_processes("auto", 100_000)


def test_an_accelerator_reads_each_photo_once(photos, tmp_path, stand_in, monkeypatch):
    """Looking first whether the photos of a small data set can be decoded takes as long as computing them."""
    monkeypatch.setattr(extraction, "_on_cpu", lambda: False)
    read, read_photo = [], decoding.read_photo
    monkeypatch.setattr(decoding, "read_photo", lambda path: read.append(path) or read_photo(path))
    extract.extract(config(photos, tmp_path))
    assert len(read) == len({*read}) == 66


def test_heads_are_judged_on_their_own_kind_of_features_only():
    mine = Fingerprint(weights_sha256="a", preprocessing="torch", preprocessing_version=1, image={}, classes=("a", "b"))
    mine.check_compatible(dataclasses.replace(mine, inputs_sha256="other", views=("original", "mirror")))
    with pytest.raises(
        CatdogError, match="expected preprocessing = 'torch', as the head was trained with, found 'caffe'"
    ):
        mine.check_compatible(dataclasses.replace(mine, preprocessing="caffe"))


def test_from_python_without_a_word(photos, tmp_path, stand_in, capsys):
    dataset = sources.load_photos(photos)
    found = extraction.extract(dataset, str(tmp_path / "cache"), views=("original", "mirror"), shard_size=10)
    by_command = extract.extract(config(photos, tmp_path, out=tmp_path / "other", views=("original", "mirror")))
    assert contents(tmp_path / "cache") == contents(tmp_path / "other")
    assert found.fingerprint == by_command.fingerprint
    capsys.readouterr()
    again = extraction.extract(dataset, tmp_path / "cache", views=("original", "mirror"), shard_size=10)
    assert "42 photos" not in capsys.readouterr().err  # a progress bar, and no more
    lines = repr(again).splitlines()
    assert lines[0] == f"FeatureCache {tmp_path / 'cache'}: cats and dogs"
    assert lines[1:] == [
        "  photos: train 42, validation 14, test 10",
        "  features: avg of original and mirror, float16",
    ]


def test_what_is_no_data_set_is_a_wrong_type(tmp_path):
    with pytest.raises(TypeError, match=r"photos: expected a Dataset, found str\. Make one with load_photos"):
        extraction.extract("photos", tmp_path / "cache")


def test_another_stored_type_is_wrong_usage(photos, tmp_path, stand_in):
    with pytest.raises(UsageError, match="--dtype: expected float16 or float32, found int8"):
        extraction.extract(sources.load_photos(photos), tmp_path / "cache", dtype="int8")


def test_a_cache_of_the_first_version_goes_on_in_it(photos, tmp_path, stand_in):
    """Where it is resumed, and where it is taken over from; a new one has the newest."""
    new = extract.extract(config(photos, tmp_path))
    assert new.fingerprint.recipe == DEFAULT
    for path in (tmp_path / "cache").glob("*.json"):
        value = sealed.read_sealed_json(path, "file")
        value["fingerprint"]["image"] = FIRST.to_json()
        sealed.write_sealed_json(path, value)
    (tmp_path / "cache" / "train-00001-of-00005.json").unlink()
    found = extraction.extract(sources.load(str(photos)), tmp_path / "cache", shard_size=10)
    assert found.fingerprint.recipe == FIRST
    told = []
    other = extraction.extract(
        sources.load(str(photos)), tmp_path / "other", shard_size=10, reuse=[tmp_path / "cache"], tell=told.append
    )
    assert other.fingerprint.recipe == FIRST
    assert told[0].endswith("; 0 to compute")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"size": 320}, "image.width is 224, expected 320"),
        ({"resize": "crop"}, "image.resize is 'halfway', expected 'crop'"),
    ],
)
def test_another_square_is_another_cache(photos, tmp_path, stand_in, options, field):
    extract.extract(config(photos, tmp_path))
    with pytest.raises(FingerprintError, match=rf"{field}\. Choose another --out"):
        extract.extract(config(photos, tmp_path, **options))


def test_cells_of_another_square_are_kept(photos, tmp_path, stand_in):
    found = extract.extract(config(photos, tmp_path, pool="none", size=320, resize="letterbox"))
    assert found.fingerprint.recipe == DecodingRecipe(2, 320, "letterbox")
    name = found.shard_names("test")[0]
    assert np.load(tmp_path / "cache" / f"{name}.features.npy").shape[2:] == (10, 10, 512)
    assert found.load("test", "none").shape[2] == 51_200
    assert found.load("test", "max").shape[2] == 512


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 225}, "--size: expected a multiple of 32 from 96 to 512, found 225."),
        ({"size": 64}, "--size: expected 96 to 512, found 64"),
        ({"resize": "fit"}, "--resize: expected halfway, squash, crop or letterbox, found fit"),
    ],
)
def test_a_square_that_cannot_be_is_wrong_usage(photos, tmp_path, stand_in, options, message):
    with pytest.raises(UsageError, match=message):
        extract.extract(config(photos, tmp_path, **options))
