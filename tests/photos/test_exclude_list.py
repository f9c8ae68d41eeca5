"""The list of photos to leave out: what is written is read, whatever the names, and reaches the extraction."""

import numpy as np
import pytest

from catdog_jax.backbone import weights
from catdog_jax.commands import extract
from catdog_jax.config import ExtractConfig
from catdog_jax.errors import CatdogError
from catdog_jax.features import extractor
from catdog_jax.photos import exclude_list, sources
from catdog_jax.photos.demo import drawing

NAMES = [
    "a b.jpg",
    "#1.jpg",
    '"q".jpg',
    " lead.jpg",
    "new\nline.jpg",
    "tab\t.jpg",
    "\udcff.jpg",
    "ünï.jpg",
    "\\n.jpg",
    "a\u2028b",
]


class Means:
    """Stands in for the network."""

    batch_size = 4
    precision = "float32"
    note = ""
    size = 224

    def __init__(self, *_, **__):
        pass

    def dispatch(self, photos: np.ndarray) -> np.ndarray:
        return np.repeat(photos.mean(axis=(1, 2, 3), dtype=np.float32)[:, None, None], 512, axis=2)


@pytest.fixture
def photos(tmp_path):
    drawing.draw_dataset(tmp_path / "photos", counts={"train": 3, "validation": 2, "test": 2})
    return tmp_path / "photos"


def test_any_name_survives_the_file(tmp_path):
    path = tmp_path / "exclude.txt"
    lines = [line for name in NAMES for line in (f"# because\nof {name!r}", exclude_list.line(name))]
    exclude_list.write(path, [*lines, "", "#", "# not/this.jpg"])
    assert exclude_list.read(path) == set(NAMES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'ok.jpg\n"half', "exclude.txt, line 2: expected an id in JSON's quotes"),
        (b"caf\xe9.jpg\n", "expected a list of photos to exclude, found: other bytes than UTF-8 or UTF-16"),
        (b"\xff\xfex", "expected a list of photos to exclude, found: other bytes than UTF-8 or UTF-16"),
        (b"train/cats/9.jpg\n", "found 1 that are not in it, for example 'train/cats/9.jpg'"),
        (None, "expected a list of photos to exclude, found: No such file"),
    ],
)
def test_a_wrong_list_is_an_error_that_says_so(tmp_path, photos, content, message):
    path = tmp_path / "exclude.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CatdogError) as error:
        exclude_list.without(sources.load(str(photos)), path)
    assert message in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_that_was_written_on_windows_is_read(tmp_path, encoding, end):
    path = tmp_path / "exclude.txt"
    path.write_bytes(end.join(["train/cats/ünï.jpg", "# not/this.jpg", '"a\\nb.jpg"', ""]).encode(encoding))
    assert exclude_list.read(path) == {"train/cats/ünï.jpg", "a\nb.jpg"}


def test_a_class_that_would_be_gone_is_an_error(tmp_path, photos):
    dataset = sources.load(str(photos))
    path = tmp_path / "exclude.txt"
    exclude_list.write(path, [record.id for record in dataset.split("test") if record.label == 1])
    with pytest.raises(CatdogError, match=r"expected to leave photos of 'dogs' in the test split"):
        exclude_list.without(dataset, path)
    assert exclude_list.without(dataset, None) is dataset


def test_an_extraction_leaves_the_photos_out_and_its_fingerprint_knows(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(extractor, "Extractor", Means)
    monkeypatch.setattr(weights, "load", lambda *_: weights.Weights({}, "torch", "0" * 64, "stand-in"))
    path = tmp_path / "exclude.txt"
    gone = sources.load(str(photos)).split("train")[0].id
    exclude_list.write(path, [gone])
    whole = extract.extract(ExtractConfig(data=str(photos), out=tmp_path / "whole"))
    less = extract.extract(ExtractConfig(data=str(photos), out=tmp_path / "less", exclude=path))
    assert set(whole.ids("train")) - set(less.ids("train")) == {gone}
    assert whole.fingerprint != less.fingerprint
    again = extract.extract(ExtractConfig(data=str(photos), out=tmp_path / "whole", exclude=path))
    assert again.fingerprint == less.fingerprint
    assert again.ids("train") == less.ids("train")
