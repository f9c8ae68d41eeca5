"""The Python way to photos: folders, names and lists, what is left out, and how a data set is shown."""

from pathlib import Path

import pytest
from PIL import Image

from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.photos import sources
from catdog_jax.photos.sources import load_photos


@pytest.fixture
def root(tmp_path) -> Path:
    """60 photos of each class, without splits."""
    for number in range(120):
        path = tmp_path / "photos" / ("cats", "dogs")[number % 2] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return tmp_path / "photos"


def pairs(root: Path) -> list[tuple[Path, str]]:
    return [(path, path.parent.name) for path in sorted(root.glob("*/*.png"))]


def test_a_folder_by_its_path_and_by_its_name(root):
    by_path, by_name = load_photos(root), load_photos(str(root))
    assert (by_path.source, by_name.source) == (str(root), str(root))
    assert by_path.inputs_sha256 == by_name.inputs_sha256 == sources.load(str(root)).inputs_sha256


def test_a_list_is_split_as_its_folder_is(root):
    listed, folder = load_photos(pairs(root)), load_photos(root)
    assert listed.classes == folder.classes
    of_folder = {root / record.id: (record.label, record.split, record.size) for record in folder.records}
    assert {Path(record.id): (record.label, record.split, record.size) for record in listed.records} == of_folder
    assert listed.records[0].read() == Path(listed.records[0].id).read_bytes()
    assert load_photos((str(path), name) for path, name in pairs(root)[::-1]).inputs_sha256 == listed.inputs_sha256


def test_photos_are_left_out(root, tmp_path):
    gone = load_photos(root).records[0].id
    (tmp_path / "exclude.txt").write_text(gone)
    assert gone not in {record.id for record in load_photos(root, exclude=tmp_path / "exclude.txt").records}


def test_a_data_set_is_shown_in_a_few_lines(root):
    shown = repr(load_photos(root)).splitlines()
    assert shown[0] == f"Dataset {root}: cats and dogs"
    assert [line.split()[0] for line in shown[1:]] == ["train", "validation", "test"]
    counts = [line.split("(")[1].rstrip(")").split(" + ") for line in shown[1:]]
    assert [sum(map(int, column)) for column in zip(*counts, strict=True)] == [60, 60]


def test_splits_that_are_not_needed_may_lack(root):
    with pytest.raises(CatdogError, match="expected at least 10 different photos of each class"):
        load_photos(pairs(root)[:1] + pairs(root)[-1:])
    assert len(load_photos(pairs(root)[:1] + pairs(root)[-1:], needed=()).records) == 2


def test_bad_lists_are_refused(root):
    some = pairs(root)
    with pytest.raises(CatdogError, match="expected photos of two classes, found 1: 'cats'"):
        load_photos(some[:3])
    with pytest.raises(CatdogError, match="expected photos of two classes, found 0: none"):
        load_photos([])
    with pytest.raises(CatdogError, match=r"png: expected each photo once, found it twice in the list"):
        load_photos([*some, some[0]])
    for wrong in (3, [3], [("a.png", 1)], [("a.png",)], None):
        with pytest.raises(TypeError, match=r"photos: expected a folder, or pairs \(path, class\), found"):
            load_photos(wrong)


def test_a_directory_of_tfds_goes_with_its_sets_alone(root):
    with pytest.raises(UsageError, match="--data-dir: expected --data tfds:NAME beside it"):
        load_photos(root, data_dir=root)
