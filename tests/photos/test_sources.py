"""Folders of photos -> records."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.photos import decoding, sources


def fill(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))
    return root


def split_folder(root: Path, validation: str = "validation") -> Path:
    names = [
        f"{split}/{kind}s/{kind}.{i}.jpg"
        for split in ("train", validation, "test")
        for kind in ("cat", "dog")
        for i in (1, 2)
    ]
    return fill(root, names)


@pytest.mark.parametrize("validation", ["validation", "val", "valid"])
def test_split_folders_are_taken_as_they_are(tmp_path, validation):
    dataset = sources.load(str(split_folder(tmp_path, validation)))
    assert dataset.classes == ("cats", "dogs")
    assert [len(dataset.split(split)) for split in sources.SPLITS] == [4, 4, 4]
    for record in dataset.records:
        assert (
            record.id == f"{validation if record.split == 'validation' else record.split}/" + record.id.split("/", 1)[1]
        )
        assert record.label == ("dogs" in record.id)
        assert record.read() == record.id.encode()
        assert record.size == len(record.id)


def test_the_order_mixes_classes_and_depends_on_names_alone(tmp_path):
    names = [f"{split}/{kind}/{i}.png" for split in sources.SPLITS for kind in ("a", "b") for i in range(20)]
    one = sources.load(str(fill(tmp_path / "one", names)))
    two = sources.load(str(fill(tmp_path / "two", names[::-1])))
    assert [record.id for record in one.records] == [record.id for record in two.records]
    labels = [record.label for record in one.split("train")]
    assert 5 < sum(labels[:20]) < 15


def test_only_photos_count_whatever_the_case_of_their_suffix(tmp_path):
    split_folder(tmp_path)
    fill(
        tmp_path,
        ["train/cats/sub/deep.PNG", "train/cats/notes.txt", "train/cats/.hidden.jpg", "train/cats/.thumbs/1.jpg"],
    )
    names = {record.id for record in sources.load(str(tmp_path)).split("train")}
    assert "train/cats/sub/deep.PNG" in names
    assert len(names) == 5


def test_any_two_names_are_classes_and_the_second_is_positive(tmp_path):
    fill(tmp_path, [f"{s}/{c}/{i}.bmp" for s in sources.SPLITS for c in ("muffin", "chihuahua") for i in range(2)])
    dataset = sources.load(str(tmp_path))
    assert dataset.classes == ("chihuahua", "muffin")
    assert all(record.label == ("muffin" in record.id) for record in dataset.records)


def test_names_that_are_not_utf8_are_kept(tmp_path):
    split_folder(tmp_path)
    odd = tmp_path / "train" / "cats" / "\udcff\n.jpg"
    odd.write_bytes(b"odd")
    record = next(record for record in sources.load(str(tmp_path)).records if "\n" in record.id)
    assert record.read() == b"odd"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "expected folders of two classes, found 0: none"),
        (["cats/1.jpg"], r"found 1: cats\. Put photos of another class into a folder beside it"),
        (
            ["a/1.jpg", "b/1.jpg", "c/1.jpg"],
            r"found 3: a, b, c\. catdog tells two apart: keep two\. To train one against the rest, move the "
            r"others into one folder, or give them one label in a table \(--data photos\.csv\)\. For all of them at once, "
            r"use Keras or fastai",
        ),
        (["train/1.jpg", "train/2.jpg", "test/1.jpg"], "found the splits test and train without class folders"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg"], "found 3: a, b, c"),
        (
            ["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg"],
            r"val: expected folders of both classes, found 'a' and no 'b'",
        ),
        (["photos/a/1.jpg", "photos/b/1.jpg"], r"found 1: photos\. Perhaps --data .*photos is meant"),
        (["train/a.1.jpg", "train/b.1.jpg", "x/1.jpg", "y/1.jpg"], "found 3: train, x, y"),
        (["a/1.txt", "b/1.txt"], "expected photos of 'a' in the train split, found none"),
    ],
)
def test_what_is_not_two_classes_is_an_error(tmp_path, names, message):
    fill(tmp_path, names)
    with pytest.raises(CatdogError, match=message) as error:
        sources.load(str(tmp_path))
    assert str(tmp_path) in str(error.value)
    assert error.value.exit_status == 1


@pytest.mark.parametrize("named", ["photos/cats", "photos/train/cats"])
def test_one_level_too_deep_names_the_folder_above(tmp_path, named, monkeypatch):
    above = (tmp_path / named).parent
    fill(tmp_path / named, [f"{i}.jpg" for i in range(75)] + ["notes.txt"])
    fill(above / "dogs", ["1.jpg"])
    fill(tmp_path / "photos", ["test/cats/1.jpg"] if "train" in named else [])
    with pytest.raises(CatdogError) as error:
        sources.load(str(tmp_path / named))
    assert str(error.value) == (
        f"{tmp_path / named}: expected folders of two classes, found 0: none, and 75 photos right here. Name the folder above: "
        f"--data {tmp_path / 'photos'}."
    )
    monkeypatch.chdir(tmp_path / named)
    with pytest.raises(CatdogError, match=f"Name the folder above: --data {tmp_path / 'photos'}"):
        sources.load(".")


def test_photos_without_class_folders_are_told(tmp_path):
    fill(tmp_path / "above" / "photos", ["a.jpg", "b.jpg"])
    with pytest.raises(
        CatdogError, match=r"none, and 2 photos right here\. Put the photos of each class into a folder of"
    ):
        sources.load(str(tmp_path / "above" / "photos"))


def test_a_folder_in_between_is_seen_through_and_said(tmp_path):
    fill(tmp_path / "pets", [f"pets/{kind}/{i}.jpg" for kind in CLASSES for i in range(10)])
    fill(tmp_path / "pets", ["__MACOSX/pets/cats/._1.jpg", ".DS_Store"])
    dataset = sources.load(str(tmp_path / "pets"))
    assert (dataset.classes, len(dataset.records), dataset.left_out) == (CLASSES, 20, ())
    assert dataset.notes == ("found class folders in 'pets'",)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(CatdogError, match="expected a folder of photos, found nothing"):
        sources.load(str(tmp_path / "absent"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(CatdogError, match="found a file"):
        sources.load(str(tmp_path / "file"))


def test_split_folders_are_found_whatever_their_case(tmp_path):
    fill(tmp_path, [f"{split}/{kind}/1.jpg" for split in ("Train", "Val", "TEST") for kind in ("cats", "dogs")])
    dataset = sources.load(str(tmp_path))
    assert dataset.classes == ("cats", "dogs")
    assert [len(dataset.split(split)) for split in sources.SPLITS] == [2, 2, 2]


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, [f"{kind}/{i}.jpg" for kind in ("plane", "train") for i in range(100)])
    assert sources.load(str(tmp_path)).classes == ("plane", "train")


CLASSES = ("cats", "dogs")
LAYOUTS = {  # folders that hold cats/ and dogs/ -> what they are: splits, "classes", or what the refusal says
    "Keras": (("train", "validation", "test"), ("train", "validation", "test")),
    "Kaggle, as it is unpacked": (
        ("training_set/training_set", "test_set/test_set"),
        ("train", "test"),
    ),
    "Kaggle, in a folder of its own name": (
        ("dataset/dataset/training_set", "dataset/dataset/test_set"),
        ("train", "test"),
    ),
    "Kaggle, completed": (("training_set", "val_set", "test_set"), ("train", "validation", "test")),
    "nested": (("photos/Train", "photos/VAL", "photos/Testing"), ("train", "validation", "test")),
    "short": (("trainset", "dev", "eval"), ("train", "validation", "test")),
    "spelt out": (("Training Data", "validation-set", "evaluation"), ("train", "validation", "test")),
    "without a test": (("train", "validation"), ("train", "validation")),
    "train alone": (("train",), ("train",)),
    "only classes": ((".",), "classes"),
    "classes, nested": (("root/root",), "classes"),  # where the folder that is given is called root too
    "splits of unknown names": (
        ("A", "B"),
        "'A' and 'B' each hold 'cats' and 'dogs', as splits do. Rename them to train",
    ),
    "folds": (("fold1", "fold2", "fold3"), "'fold1' and 'fold2' and 'fold3' each hold 'cats' and 'dogs', as splits do"),
    "unknown names, nested": (("A/A", "B/B"), "'A' and 'B' each hold 'cats' and 'dogs', as splits do"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_folders_mean(tmp_path, layout):
    places, expected = LAYOUTS[layout]
    root = fill(
        tmp_path / "root", [f"{place}/{kind}/{i}.jpg" for place in places for kind in CLASSES for i in range(100)]
    )
    if isinstance(expected, str) and expected != "classes":
        with pytest.raises(CatdogError, match=expected):
            sources.load(str(root))
        return
    dataset = sources.load(str(root))
    assert dataset.classes == CLASSES
    assert len(dataset.records) == 200 * len(places)
    named = () if expected == "classes" else expected
    assert dataset.drawn == tuple(split for split in ("test", "validation") if split not in named)
    for place, split in zip(places, named, strict=bool(named)):
        assert {record.id.rsplit("/", 2)[0] for record in dataset.split(split)} == {place}
    drawn = [f"found no {split} split: " for split in dataset.drawn] if named else []
    said = [note for note in dataset.notes if note.startswith("found no")]
    assert all(note.startswith(start) for note, start in zip(said, drawn, strict=True))
    told = " ".join(note for note in dataset.notes if not note.startswith("found no"))
    plain = layout in ("Keras", "only classes", "without a test", "train alone")
    assert told == "" if plain else all(repr(place) in told for place in places)


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "val", "test")])
def test_splits_inside_classes_are_refused(tmp_path, splits):
    fill(tmp_path, [f"{kind}/{split}/1.jpg" for kind in CLASSES for split in splits])
    with pytest.raises(CatdogError, match=r"'cats' and 'dogs' each hold .*: splits inside classes\. Turn it round"):
        sources.load(str(tmp_path))


def test_classes_may_have_subfolders(tmp_path):
    names = [
        f"{kind}/{sub}/{i}.jpg" for kind, sub in (("cats", "old"), ("cats", "new"), ("dogs", "new")) for i in range(100)
    ]
    assert sources.load(str(fill(tmp_path, names))).classes == CLASSES


def test_a_single_class_is_not_taken_for_a_folder_in_between(tmp_path):
    fill(tmp_path, ["cats/persian/1.jpg", "cats/siamese/1.jpg"])
    with pytest.raises(CatdogError, match="found 1: cats"):
        sources.load(str(tmp_path), ())


JPEG, HEIC, TIFF = b"\xff\xd8\xff\xe0", b"\0\0\0\x18ftypheic", b"II*\0"


def test_what_is_not_taken_is_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(decoding, "has_heic", lambda: False)
    split_folder(tmp_path)
    for name, content in {
        "train/cats/phone.HEIC": HEIC,
        "train/cats/scan.tif": TIFF,
        "train/cats/bare": JPEG,
        "train/cats/README": b"text",
        "train/cats/modern": b"\xff\x0a\xfa\x7f",
        "train/cats/notes.txt": b"text",
        "train/cats/saved.jpg_": JPEG,
        "train/cats/.thumbs/1.jpg": JPEG,
        "train/cats/.hidden.jpg": JPEG,
        "train/loose.jpg": JPEG,
        "unlabelled/1.jpg": JPEG,
        "unlabelled/2.heic": HEIC,
        **dict.fromkeys(("train/cats/.DS_Store", "test/Thumbs.db", "__MACOSX/train/cats/._1.jpg", "._x.jpg"), JPEG),
    }.items():
        fill(tmp_path, [name])
        (tmp_path / name).write_bytes(content)
    dataset = sources.load(str(tmp_path))
    assert len(dataset.records) == 14
    assert {"train/cats/scan.tif", "train/cats/bare"} <= {record.id for record in dataset.records}
    assert {one.kind: (one.count, one.pictures) for one in dataset.left_out} == {
        ".heic": (2, 2),
        "without a suffix": (2, 1),
        ".txt": (1, 0),
        ".jpg_": (1, 1),
        "hidden folder": (1, 0),
        "hidden": (1, 1),
        "outside the class folders": (2, 2),
    }
    sources.tell(dataset)
    line = capsys.readouterr().err
    assert line.startswith(
        "left out: 2 .heic, 2 outside the class folders, 2 without a suffix, 1 .jpg_, 1 hidden, 1 .txt"
    )
    assert "7 of them look like pictures, for example 'train/cats/phone.HEIC'" in line
    assert line.rstrip().endswith("; for the 2 HEIC, run pip install 'catdog-jax[heic]'")


def test_every_name_of_a_jpeg_is_taken(tmp_path):
    split_folder(tmp_path)
    fill(tmp_path, [f"train/cats/x{suffix}" for suffix in (".jfif", ".JPE", ".gif")])
    dataset = sources.load(str(tmp_path))
    assert len(dataset.split("train")) == 7
    assert not dataset.left_out


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    root = split_folder(tmp_path / "photos")
    fill(tmp_path / "elsewhere", ["deep/1.jpg", "2.jpg"])
    os.symlink(tmp_path / "elsewhere", root / "train" / "cats" / "a link")
    os.symlink(root / "train" / "cats", root / "train" / "cats" / "loop")
    # Leads to all other classes as well, but is another class's folder
    os.symlink(root, tmp_path / "elsewhere" / "loop")
    (root / "train" / "cats" / "gone").symlink_to(tmp_path / "nowhere")
    fill(tmp_path / "pool" / "cats", ["9.jpg"])
    os.rename(root / "test" / "cats", tmp_path / "pool" / "tested")
    os.symlink(tmp_path / "pool" / "tested", root / "test" / "cats")
    os.unlink(tmp_path / "elsewhere" / "loop")
    dataset = sources.load(str(root))
    names = {record.id for record in dataset.split("train") if record.label == 0}
    assert names == {f"train/cats/{name}" for name in ("cat.1.jpg", "cat.2.jpg", "a link/2.jpg", "a link/deep/1.jpg")}
    assert len(dataset.split("test")) == 4
    assert [(one.kind, one.count) for one in dataset.left_out] == [("without a suffix", 1)]


def test_a_link_to_what_is_walked_anyway_adds_nothing(tmp_path):
    """Not even where the link comes first by its name: ids stay those of the folders themselves."""
    split_folder(tmp_path)
    fill(tmp_path, ["train/cats/real/1.jpg"])
    os.symlink(tmp_path / "train" / "cats" / "real", tmp_path / "train" / "cats" / "a link")
    names = {record.id for record in sources.load(str(tmp_path)).split("train")}
    assert len(names) == 5
    assert "train/cats/real/1.jpg" in names


@pytest.mark.parametrize("name", [os.fsdecode(b"h\x81nde"), "two\nlines"])
def test_class_names_that_are_no_text_are_refused(tmp_path, name):
    fill(tmp_path, [f"{split}/{kind}/1.jpg" for split in sources.SPLITS for kind in ("cats", name)])
    with pytest.raises(CatdogError, match="expected class folders named in UTF-8 without control characters") as error:
        sources.load(str(tmp_path))
    assert repr(name) in str(error.value)
    assert str(error.value).isprintable()


def test_folders_without_pictures_are_no_classes(tmp_path):
    split_folder(tmp_path)
    fill(tmp_path, ["train/notes/read.me", "test/empty/.keep"])
    assert sources.load(str(tmp_path)).classes == CLASSES
    fill(tmp_path, ["train/birds/1.jxl"])
    (tmp_path / "train" / "birds" / "1.jxl").write_bytes(b"\xff\x0a\xfa\x7f")
    with pytest.raises(CatdogError, match="found 3: birds, cats, dogs"):
        sources.load(str(tmp_path))


def test_a_data_set_must_be_named():
    with pytest.raises(
        UsageError, match=r"--data: expected photos, found none named\. Give --data FOLDER, or --data demo"
    ):
        sources.locate(None, None)


def test_the_fingerprint_of_a_folder_is_what_it_was(tmp_path):
    inputs = [[r.id, r.label, r.split, r.size] for r in sources.load(str(split_folder(tmp_path))).records]
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    assert sources.load(str(tmp_path)).inputs_sha256 == hashlib.sha256(text.encode()).hexdigest()
