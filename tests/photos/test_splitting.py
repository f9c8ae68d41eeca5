"""The splits that nobody named: how many photos, which, and what moves when a folder grows."""

import dataclasses
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding, splitting
from catdog_jax.photos.dataset import SPLITS, Record
from catdog_jax.photos.sources import load_photos

CLASSES = ("cats", "dogs")


def record(name: str, label: int, content: bytes, split: str = "train") -> Record:
    return Record(name, label, split, len(content), lambda: content)


def random_records(rng: np.random.Generator, *counts: int) -> list[Record]:
    """So many photos of each class, each of random bytes."""
    return [record(f"{label}/{i}", label, rng.bytes(16)) for label in (0, 1) for i in range(counts[label])]


def drawn(records: list[Record], splits=("test", "validation"), needed=SPLITS) -> dict[str, str]:
    return {one.id: one.split for one in splitting.draw(records, splits, CLASSES, "photos", needed).records}


def counts(split_of: dict[str, str]) -> dict[tuple[str, str], int]:
    return Counter((split, name[0]) for name, split in split_of.items())


@pytest.mark.parametrize(
    ("photos", "tenth"), [(10, 1), (14, 1), (15, 2), (75, 8), (130, 13), (13, 1), (999, 100), (1000, 100)]
)
def test_each_class_has_its_tenths(photos, tenth):
    found = counts(drawn(random_records(np.random.default_rng(photos), photos, 20)))
    assert [found[split, "0"] for split in SPLITS] == [photos - 2 * tenth, tenth, tenth]
    assert [found[split, "1"] for split in SPLITS] == [16, 2, 2]


def test_the_order_of_the_hashes_decides():
    records = random_records(np.random.default_rng(0), 40, 30)
    found = drawn(records)
    for label, tenth in ((0, 4), (1, 3)):
        ranked = sorted(
            (one for one in records if one.label == label), key=lambda one: hashlib.sha256(one.read()).digest()
        )
        expected = ["test"] * tenth + ["validation"] * tenth + ["train"] * (len(ranked) - 2 * tenth)
        assert [found[one.id] for one in ranked] == expected
    assert drawn(records[::-1]) == found
    renamed = [record(f"{one.label}/x{one.id}", one.label, one.read()) for one in records]
    assert list(drawn(renamed).values()) == list(found.values())


@pytest.mark.parametrize("splits", [("validation",), ("test",)])
def test_one_split_is_drawn_from_train_and_the_others_stay(splits):
    rng = np.random.default_rng(0)
    there = "test" if splits == ("validation",) else "validation"
    others = [record(f"{label}/there{i}", label, rng.bytes(16), there) for label in (0, 1) for i in range(3)]
    found = drawn(random_records(rng, 50, 30) + others, splits)
    assert counts(found) == {
        (splits[0], "0"): 5, (splits[0], "1"): 3, ("train", "0"): 45, ("train", "1"): 27, (there, "0"): 3, (there, "1"): 3,
    }  # fmt: skip


def test_growing_folders_move_a_handful():
    """20 photos come to 150: how many of the 150 lie in another split afterwards, over 200 folders."""
    moved = []
    for seed in range(200):
        records = random_records(np.random.default_rng(seed), 85, 85)
        before = drawn([one for one in records if int(one.id[2:]) < 75])
        after = drawn(records)
        moved.append(sum(after[name] != split for name, split in before.items()))
    assert np.mean(moved) < 5
    assert max(moved) <= 15


def test_identical_photos_stay_together():
    """Within a class and across the two."""
    records = random_records(np.random.default_rng(0), 60, 60)
    copies = [record(f"{one.id}-copy{i}", one.label, one.read()) for one in records[:30] for i in range(one.label + 2)]
    wrong = [record(f"1/wrong{i}", 1, one.read()) for i, one in enumerate(records[:25])]
    found = drawn([*records, *copies, *wrong])
    assert all(found[one.id] == found[one.id.partition("-")[0]] for one in copies)
    assert all(found[one.id] == found[other.id] for one, other in zip(wrong, records, strict=False))
    assert all(counts(found)[split, kind] for split in SPLITS for kind in "01")


def test_fewer_than_ten_photos_are_refused():
    records = random_records(np.random.default_rng(0), 12, 9)
    message = (
        r"photos: expected at least 10 different photos of each class, to draw the test and validation splits from, "
        r"found 12 of 'cats' and 9 of 'dogs'\. Add photos of the smaller class\."
    )
    with pytest.raises(CatdogError, match=message):
        drawn(records)
    copies = [record(f"1/copy{i}", 1, records[-1].read()) for i in range(30)]
    with pytest.raises(CatdogError, match="and 9 of 'dogs'"):
        drawn(records + copies)
    with pytest.raises(CatdogError, match="to draw the validation split from"):
        drawn(records, ("validation",))
    assert counts(drawn(records, needed=("train",))) == {("train", "0"): 10, ("test", "0"): 1, ("validation", "0"): 1,
                                                          ("train", "1"): 9}  # fmt: skip


def test_what_cannot_be_read_is_told_or_in_train():
    def fail(error: Exception) -> Record:
        def read() -> bytes:
            raise error

        return Record("0/broken", 0, "train", 0, read)

    records = random_records(np.random.default_rng(0), 20, 20)
    assert drawn([*records, fail(decoding.ImageError("expected a file, found nothing"))])["0/broken"] == "train"
    with pytest.raises(CatdogError, match=r"photos: 0/broken: cannot be read: no disk\. Repair the disk"):
        drawn([*records, fail(decoding.UnreadableError("cannot be read: no disk"))])


def fill(root: Path, place: str, photos: int) -> None:
    (root / place).mkdir(parents=True)
    for i in range(photos):
        (root / place / f"{i}.jpg").write_bytes(f"{place} {i}".encode())


def test_what_was_drawn_is_said_with_counts(tmp_path):
    for split, photos in (("train", 40), ("validation", 5)):
        for kind, more in (("cats", 0), ("dogs", 20)):
            fill(tmp_path, f"{split}/{kind}", photos + more)
    dataset = load_photos(tmp_path)
    assert dataset.notes == (
        "found no test split: 10 photos of train (4 'cats', 6 'dogs') were drawn for it; so small a test gives rough figures",
    )
    assert dataset.drawn == ("test",)
    assert len(dataset.split("train")) == 90
    assert dataset.inputs_sha256 == load_photos(tmp_path, needed=()).inputs_sha256
    for kind in ("cats", "dogs"):
        fill(tmp_path, f"test/{kind}", 2)
    assert load_photos(tmp_path).notes == ()


def test_undivided_photos_are_all_in_train(tmp_path):
    for kind in ("cats", "dogs"):
        fill(tmp_path / "plain", kind, 4)  # too few to draw splits from
        fill(tmp_path / "named", f"train/{kind}", 5)
        fill(tmp_path / "named", f"test/{kind}", 3)
    plain = load_photos(tmp_path / "plain", undivided=True)
    assert [len(plain.split(split)) for split in SPLITS] == [8, 0, 0]
    assert plain.drawn == ()
    assert plain.notes == (
        "undivided: no test and no validation split was drawn; train has 8 photos (4 'cats', 4 'dogs')",
    )
    named = load_photos(tmp_path / "named", undivided=True)
    assert [len(named.split(split)) for split in SPLITS] == [10, 0, 6]
    assert named.notes == ("undivided: no validation split was drawn; train has 10 photos (5 'cats', 5 'dogs')",)
    pairs = [(photo, photo.parent.name) for photo in (tmp_path / "plain").rglob("*.jpg")]
    assert len(load_photos(pairs, undivided=True).split("train")) == 8
    with pytest.raises(CatdogError, match=r"expected at least 10 different photos"):
        load_photos(tmp_path / "plain")


def test_a_large_drawn_test_is_not_called_small():
    records = [record(f"{i}", i % 2, b"", "test") for i in range(300)]
    assert splitting.drawn_notes(records, ("test",), CLASSES) == (
        "found no test split: 300 photos of train (150 'cats', 150 'dogs') were drawn for it",
    )


def test_a_group_stays_together_and_with_copies_of_its_photos():
    rng = np.random.default_rng(0)
    animals = [
        dataclasses.replace(one, group=f"{one.label}-{int(one.id[2:]) % 25}") for one in random_records(rng, 100, 100)
    ]
    copy = dataclasses.replace(animals[0], id="0/copy", group="0-1")  # so groups 0-0 and 0-1 are one
    alone = [record(f"1/alone{i}", 1, rng.bytes(16)) for i in range(30)]
    records = [*animals, *alone, copy]
    found = drawn(records)
    groups: dict[str, set[str]] = {}
    for one in records:
        groups.setdefault(one.group or one.id, set()).add(found[one.id])
    assert all(len(splits) == 1 for splits in groups.values())
    assert groups["0-0"] == groups["0-1"]
    assert all(8 <= counts(found)[split, kind] <= 20 for split in ("test", "validation") for kind in "01")
    assert drawn(records[::-1]) == found
    assert (
        drawn([one for one in records if one.group != "0-7"]).items()
        >= {name: split for name, split in found.items() if name.startswith("1")}.items()
    )
