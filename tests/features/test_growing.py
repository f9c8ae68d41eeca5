"""A data set that grows: the bytes of a cache made from scratch, and only what is new is computed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import object_store
from helpers.blocks import Blocks
from PIL import Image

from catdog_jax import cli, stored_files
from catdog_jax.backbone import weights
from catdog_jax.commands import extract as extract_command
from catdog_jax.config import ExtractConfig
from catdog_jax.errors import CatdogError
from catdog_jax.features import extraction, growing, shards
from catdog_jax.features import extractor as extractors
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import buckets
from catdog_jax.photos import sources
from catdog_jax.photos.dataset import Dataset
from catdog_jax.photos.fingerprint import FingerprintError


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path) -> Path:
    """30 photos: 9 + 3 + 3 of each class."""
    root, seed = tmp_path / "photos", 0
    for split, count in (("train", 9), ("validation", 3), ("test", 3)):
        for kind in ("cats", "dogs"):
            for i in range(count):
                draw(root / split / kind / f"{i}.png", seed := seed + 1)
    return root


@pytest.fixture
def computed(monkeypatch) -> list[np.ndarray]:
    """The photos that the stand-in for the network has computed, without the padding."""
    seen: list[np.ndarray] = []

    class Watched(Blocks):
        def dispatch(self, pixels: np.ndarray) -> np.ndarray:
            seen.extend(photo for photo in pixels if photo.any())
            return super().dispatch(pixels)

    monkeypatch.setattr(extractors, "Extractor", Watched)
    monkeypatch.setattr(weights, "load", lambda *_: weights.Weights({}, "torch", "0" * 64, "stand-in"))
    return seen


@pytest.fixture
def extract(photos, tmp_path, computed):
    """Extracts and returns the cache and how many photos were computed."""

    def run(out: str = "cache", data: Path = photos, **options) -> tuple[FeatureCache, int]:
        computed.clear()
        place = tmp_path / out if isinstance(out, str) else out
        found = extract_command.extract(ExtractConfig(**{"data": str(data), "out": place, "shard_size": 8, **options}))
        return found, len(computed)

    return run


def contents(directory: Path) -> dict[str, bytes]:
    assert not any(path.is_dir() for path in directory.iterdir())
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def add(photos: Path, count: int = 2) -> None:
    for i in range(count):
        draw(photos / "train" / ("cats", "dogs")[i % 2] / f"new{i}.png", 1000 + i)


@pytest.mark.parametrize("pool", ["avg+max", "none"])
def test_a_folder_that_grew_gives_the_bytes_of_one_from_scratch(extract, photos, tmp_path, pool, capsys):
    options = {"pool": pool, "views": ("original", "mirror")}
    assert extract(**options)[1] == 30
    add(photos, 5)
    (photos / "train" / "cats" / "3.png").unlink()
    capsys.readouterr()
    grown, count = extract(**options)
    assert count == 5
    told = capsys.readouterr().err
    assert f"29 of 34 photos are taken over from {tmp_path / 'cache'}; 5 to compute" in told
    assert extract("whole", **options)[1] == 34
    assert contents(grown.path) == contents(tmp_path / "whole")
    assert extract(**options)[1] == 0


def test_moved_and_relabelled_photos_are_not_computed_again(extract, photos, tmp_path):
    extract()
    shutil.move(photos / "train" / "cats" / "0.png", photos / "train" / "dogs" / "was a cat.png")
    shutil.move(photos / "train" / "cats" / "1.png", photos / "test" / "cats" / "moved.png")
    shutil.copy(photos / "train" / "dogs" / "0.png", photos / "train" / "dogs" / "copy.png")
    assert extract()[1] == 0
    assert extract("whole")[1] == 31
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")


def test_other_names_of_classes_and_sizes_of_shards_compute_nothing(extract, photos, tmp_path):
    extract()
    for split in photos.iterdir():
        (split / "cats").rename(split / "felines")
    assert extract(shard_size=100)[1] == 0
    extract("whole", shard_size=100)
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")  # and no shard of the older size is left


def test_what_cannot_be_decoded_is_listed_again(extract, photos, tmp_path):
    (photos / "train" / "cats" / "0.png").write_text("<html>")
    extract()
    add(photos)
    grown, count = extract()
    assert count == 2
    assert [item["id"] for item in grown.skipped("train")] == ["train/cats/0.png"]
    extract("whole")
    assert contents(grown.path) == contents(tmp_path / "whole")


def test_too_many_new_photos_that_cannot_be_decoded_leave_the_old_cache(extract, photos, tmp_path):
    extract()
    before = contents(tmp_path / "cache")
    for i in range(5):
        (photos / "train" / "cats" / f"bad{i}.png").write_text("<html>")
    with pytest.raises(CatdogError, match="expected at most 5% of 23 photos to be unreadable, found 5"):
        extract()
    assert contents(tmp_path / "cache") == before


def test_a_damaged_shard_counts_as_absent(extract, photos, tmp_path):
    found, _ = extract()
    name = found.shard_names("train")[0]
    path = tmp_path / "cache" / f"{name}.features.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    add(photos)
    assert extract()[1] == 2 + 8
    extract("whole")
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")


@pytest.mark.parametrize("gone", ["features", "sidecar"])
def test_so_does_one_without_a_file(extract, photos, tmp_path, gone):
    found, _ = extract()
    end = "features.npy" if gone == "features" else "json"
    (tmp_path / "cache" / f"{found.shard_names('train')[0]}.{end}").unlink()
    add(photos)
    assert extract()[1] == 2 + 8


def test_interrupted_while_it_grows_it_goes_on_from_both(extract, photos, tmp_path, monkeypatch):
    extract()
    before = contents(tmp_path / "cache")
    add(photos, 20)
    write = extraction.shard_files.write_shard

    def fail_at_the_third(out, name, *rest):
        if name.startswith("train-00002"):
            raise CatdogError("full")
        write(out, name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(extraction.shard_files, "write_shard", fail_at_the_third)
        with pytest.raises(CatdogError, match="full"):
            extract()
    assert {path.name: path.read_bytes() for path in (tmp_path / "cache").glob("*.*") if path.is_file()} == before
    assert FeatureCache.open(tmp_path / "cache").load("train", "avg").shape == (18, 1, 512)  # the old one is whole
    (remark,) = stored_files.verify([tmp_path / "cache"]).remarks.items()
    assert "was interrupted; run it again" in remark[0][1]
    old, waiting = photos_in(tmp_path / "cache"), photos_in(*growing.places(tmp_path / "cache"))
    assert waiting - old
    draw(photos / "train" / "cats" / "and one more.png", 5000)  # another list, from both
    found, count = extract()
    assert count == len(photos_in(found.path) - old - waiting)
    assert 0 < count < 21
    extract("whole")
    assert contents(found.path) == contents(tmp_path / "whole")


def photos_in(*places: Path) -> set[str]:
    return {
        digest for place in places for sidecar in shards.sidecars(place).values() for digest in sidecar["source_sha256"]
    }


def test_another_data_set_does_not_take_the_place(extract, photos, tmp_path):
    extract()
    before = contents(tmp_path / "cache")
    other = tmp_path / "others"
    shutil.copytree(photos, other)
    for i, path in enumerate(sorted(other.rglob("*.png"))[:16]):
        path.unlink()
        draw(path.with_stem(f"other {i}"), 2000 + i)
    message = (
        r"holds features of 30 photos, of which 14 are in .*others: expected at least half, .* --reuse .*cache what"
    )
    with pytest.raises(FingerprintError, match=message):
        extract(data=other)
    assert contents(tmp_path / "cache") == before
    found, count = extract("new", data=other, reuse=(tmp_path / "cache",))
    assert count == 16
    extract("whole", data=other)
    assert contents(found.path) == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("kept", "wanted"),
    [
        ({"views": ("original", "mirror")}, {}),
        ({"views": ("original", "mirror")}, {"views": ("mirror",)}),
        ({"pool": "avg+max"}, {"pool": "max"}),
        ({"pool": "avg+max"}, {"pool": "avg"}),
        ({"pool": "none", "views": ("original", "mirror")}, {"pool": "max"}),
        ({"pool": "none", "dtype": "float32"}, {"pool": "max", "dtype": "float32"}),
    ],
)
def test_a_cache_of_more_gives_one_of_less(extract, tmp_path, kept, wanted):
    extract("kept", **kept)
    assert extract(reuse=(tmp_path / "kept",), **wanted)[1] == 0
    extract("whole", **wanted)
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("kept", "wanted", "message"),
    [
        ({"dtype": "float32"}, {}, "with dtype 'float16' for --reuse, found 'float32'"),
        (
            {},
            {"views": ("original", "mirror")},
            r"with views \['original', 'mirror'\] for --reuse, found \['original'\]",
        ),
        ({"pool": "none"}, {"pool": "avg"}, "with pool 'avg' for --reuse, found 'none'"),
        ({"pool": "none"}, {"pool": "avg+max"}, "with pool 'avg\\+max' for --reuse, found 'none'"),
        ({"pool": "max"}, {"pool": "avg"}, "with pool 'avg' for --reuse, found 'max'"),
    ],
)
def test_a_cache_that_would_give_other_bytes_is_refused_and_the_field_named(extract, tmp_path, kept, wanted, message):
    extract("kept", **kept)
    with pytest.raises(FingerprintError, match=message):
        extract(reuse=(tmp_path / "kept",), **wanted)
    assert not list((tmp_path / "cache").glob("*"))


def test_so_is_one_of_other_weights(extract, photos, tmp_path, monkeypatch):
    extract("kept")
    monkeypatch.setattr(weights, "load", lambda *_: weights.Weights({}, "torch", "1" * 64, "stand-in"))
    with pytest.raises(FingerprintError, match=f"with weights_sha256 '{'1' * 64}' for --reuse, found '{'0' * 64}'"):
        extract(reuse=(tmp_path / "kept",))
    add(photos)
    with pytest.raises(FingerprintError, match="weights_sha256 is '0000"):  # and in its own place
        extract("kept")


def test_what_is_no_cache_cannot_be_reused(extract, tmp_path, photos, capsys):
    with pytest.raises(
        CatdogError, match=r"nowhere: expected a feature cache for --reuse, found none\. Check the path"
    ):
        extract(reuse=(tmp_path / "nowhere",))
    extract("kept")
    capsys.readouterr()
    command = ["extract", "--data", str(photos), "--out", str(tmp_path / "by command"), "--shard-size", "8"]
    assert cli.main([*command, "--reuse", str(tmp_path / "kept")]) == 0
    assert "30 of 30 photos are taken over from" in capsys.readouterr().err
    assert contents(tmp_path / "by command") == contents(tmp_path / "kept")


def test_a_bucket_is_taken_from_and_not_renewed_in_its_place(extract, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(buckets.DRIVERS, object_store.SCHEME, "fsspec")  # other tests know of no such scheme
    bucket = object_store.bucket(tmp_path / "store")
    extract(bucket)
    add(photos)
    with pytest.raises(FingerprintError, match=r"a bucket cannot be renewed .* another --out, with --reuse store://"):
        extract(bucket)
    other = object_store.bucket(tmp_path / "other store")
    assert extract(other, reuse=(bucket,))[1] == 2
    extract("whole")
    found = contents(tmp_path / "other store")
    expected = contents(tmp_path / "whole")
    assert {**found, "manifest.json": b""} == {**expected, "manifest.json": b""}  # which says where the photos are


def test_shares_renew_a_cache_together(extract, photos, tmp_path):
    extract()
    add(photos, 4)
    assert extract(shard_index=1, num_shards=2)[0] is None
    dataset = sources.load_photos(photos)
    assert len(extraction.missing(dataset, tmp_path / "cache", 8)) == 3
    assert FeatureCache.open(tmp_path / "cache").rows("train") == 18
    assert extract(shard_index=0, num_shards=2)[0].rows("train") == 22
    extract("whole")
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")


def test_a_reader_of_the_old_cache_never_gets_rows_of_the_new_one(extract, photos, tmp_path):
    old, _ = extract()
    labels = old.labels("train")
    (photos / "train" / "cats" / "0.png").unlink()
    add(photos)
    extract()
    with pytest.raises(CatdogError, match=r"expected the fingerprint of manifest\.json, found another"):
        old.load("train", "avg")
    assert len(labels) == 18


def test_run_takes_the_pooling_that_is_there(extract, photos, tmp_path, capsys, monkeypatch):
    command = ["run", "--data", str(photos), "--out", str(tmp_path / "run"), "--features"]
    extract("kept", pool="avg+max")
    assert cli.main([*command, str(tmp_path / "kept"), "--preset", "reference"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "kept: expected features of pool none for --preset reference, found avg+max. Keep these" in told
    assert "name another place with --features" in told
    extract("all", pool="none")
    asked: list[ExtractConfig] = []

    def stop(config: ExtractConfig, *_: Dataset) -> None:
        asked.append(config)
        raise CatdogError("stopped")

    monkeypatch.setattr(extract_command, "extract", stop)
    for cache, preset in (("all", "default"), ("all", "reference"), ("kept", "default"), ("new", "reference")):
        assert cli.main([*command, str(tmp_path / cache), "--preset", preset, "--reuse", str(tmp_path / "kept")]) == 1
    assert [config.pool for config in asked] == ["none", "none", "avg+max", "none"]
    assert {config.reuse for config in asked} == {(tmp_path / "kept",)}
