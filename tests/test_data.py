"""Folders of photos -> records."""

import hashlib
from pathlib import Path

import pytest

from catdog_jax import data
from catdog_jax.errors import CatdogError


def fill(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def split_folder(root: Path, validation: str = "validation") -> Path:
    names = [
        f"{split}/{kind}s/{kind}.{i}.jpg" for split in ("train", validation, "test") for kind in ("cat", "dog") for i in (1, 2)
    ]
    return fill(root, names)


@pytest.mark.parametrize("validation", ["validation", "val", "valid"])
def test_split_folders_are_taken_as_they_are(tmp_path, validation):
    dataset = data.load(str(split_folder(tmp_path, validation)))
    assert dataset.classes == ("cats", "dogs")
    assert [len(dataset.split(split)) for split in data.SPLITS] == [4, 4, 4]
    for record in dataset.records:
        assert record.id == f"{validation if record.split == 'validation' else record.split}/" + record.id.split("/", 1)[1]
        assert record.label == ("dogs" in record.id)
        assert record.read() == record.id.encode()
        assert record.size == len(record.id)


def test_the_order_mixes_classes_and_depends_on_names_alone(tmp_path):
    names = [f"{split}/{kind}/{i}.png" for split in data.SPLITS for kind in ("a", "b") for i in range(20)]
    one = data.load(str(fill(tmp_path / "one", names)))
    two = data.load(str(fill(tmp_path / "two", names[::-1])))
    assert [record.id for record in one.records] == [record.id for record in two.records]
    labels = [record.label for record in one.split("train")]
    assert 5 < sum(labels[:20]) < 15


def test_a_folder_without_splits_is_split_by_content(tmp_path):
    names = [f"{kind}/{i}.jpg" for kind in ("cat", "dog") for i in range(300)]
    dataset = data.load(str(fill(tmp_path / "a", names)))
    shares = [len(dataset.split(split)) / 600 for split in data.SPLITS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.04)
    for record in dataset.records:  # the documented rule, computed anew
        share = int(hashlib.sha256(record.id.encode()).hexdigest()[:16], 16) / 16**16
        assert record.split == ("train" if share < 0.8 else "validation" if share < 0.9 else "test")


def test_identical_photos_never_lie_on_two_sides(tmp_path):
    names = [f"{kind}/{i}.jpg" for kind in ("cat", "dog") for i in range(100)]
    fill(tmp_path, names)
    for i in range(100):
        (tmp_path / "dog" / f"copy of {i}.jpeg").write_bytes(f"cat/{i}.jpg".encode())
    split = {record.id: record.split for record in data.load(str(tmp_path)).records}
    assert all(split[f"cat/{i}.jpg"] == split[f"dog/copy of {i}.jpeg"] for i in range(100))


def test_only_photos_count_whatever_the_case_of_their_suffix(tmp_path):
    split_folder(tmp_path)
    fill(tmp_path, ["train/cats/sub/deep.PNG", "train/cats/notes.txt", "train/cats/.hidden.jpg", "train/cats/.thumbs/1.jpg"])
    names = {record.id for record in data.load(str(tmp_path)).split("train")}
    assert "train/cats/sub/deep.PNG" in names
    assert len(names) == 5


def test_any_two_names_are_classes_and_the_second_is_positive(tmp_path):
    fill(tmp_path, [f"{s}/{c}/{i}.bmp" for s in data.SPLITS for c in ("muffin", "chihuahua") for i in range(2)])
    dataset = data.load(str(tmp_path))
    assert dataset.classes == ("chihuahua", "muffin")
    assert all(record.label == ("muffin" in record.id) for record in dataset.records)


def test_names_that_are_not_utf8_are_kept(tmp_path):
    split_folder(tmp_path)
    odd = tmp_path / "train" / "cats" / "\udcff\n.jpg"
    odd.write_bytes(b"odd")
    record = next(record for record in data.load(str(tmp_path)).records if "\n" in record.id)
    assert record.read() == b"odd"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "expected folders of two classes, found 0: none"),
        (["cats/1.jpg"], "found 1: cats"),
        (["a/1.jpg", "b/1.jpg", "c/1.jpg"], "found 3: a, b, c"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg"], "found 3: a, b, c"),
        (["train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/b/1.jpg"], "expected photos of 'a' in the validation split"),
        (["a/1.txt", "b/1.txt"], "expected photos of 'a' in the train split, found none"),
    ],
)
def test_what_is_not_two_classes_is_an_error(tmp_path, names, message):
    fill(tmp_path, names)
    with pytest.raises(CatdogError, match=message) as error:
        data.load(str(tmp_path))
    assert str(tmp_path) in str(error.value)
    assert error.value.exit_status == 1


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(CatdogError, match="expected a folder of photos, found nothing"):
        data.load(str(tmp_path / "absent"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(CatdogError, match="found a file"):
        data.load(str(tmp_path / "file"))


def test_split_folders_are_found_whatever_their_case(tmp_path):
    fill(tmp_path, [f"{split}/{kind}/1.jpg" for split in ("Train", "Val", "TEST") for kind in ("cats", "dogs")])
    dataset = data.load(str(tmp_path))
    assert dataset.classes == ("cats", "dogs")
    assert [len(dataset.split(split)) for split in data.SPLITS] == [2, 2, 2]


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, [f"{kind}/{i}.jpg" for kind in ("plane", "train") for i in range(100)])
    assert data.load(str(tmp_path)).classes == ("plane", "train")
