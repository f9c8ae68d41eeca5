"""What belongs together: named by folders, by a pattern or by a table, never divided, and told."""

import re
from pathlib import Path

import pytest

from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.photos.dataset import Dataset
from catdog_jax.photos.sources import load_photos


def fill(root: Path, places: dict[str, int]) -> Path:
    """So many different files in each folder, which no decoder knows."""
    for place, photos in places.items():
        (root / place).mkdir(parents=True)
        for i in range(photos):
            (root / place / f"{Path(place).name}_{i}.jpg").write_bytes(f"{place} {i}".encode())
    return root


def animals(root: Path) -> Path:
    """Six photos each of twelve cats and twelve dogs."""
    return fill(root, {f"{kind}s/{kind}{i:02}": 6 for kind in ("cat", "dog") for i in range(12)})


def splits(dataset: Dataset) -> dict[str | None, set[str]]:
    found: dict[str | None, set[str]] = {}
    for record in dataset.records:
        found.setdefault(record.group, set()).add(record.split)
    return found


def test_photos_of_a_folder_below_the_class_stay_together(tmp_path):
    dataset = load_photos(animals(tmp_path), groups="folder")
    found = splits(dataset)
    assert found.keys() == {f"{kind}s/{kind}{i:02}" for kind in ("cat", "dog") for i in range(12)}
    assert all(len(places) == 1 for places in found.values())
    assert len(dataset.split("test")) == len(dataset.split("validation")) == 12
    assert dataset.notes == ("groups: 144 photos in 24, the largest 6",)
    plain = load_photos(tmp_path)
    assert any(len({one.split for one in plain.records if name in one.id}) > 1 for name in found if name)
    assert dataset.inputs_sha256 != plain.inputs_sha256


@pytest.mark.parametrize(
    ("pattern", "name"), [(r"(\w+\d\d)_", "cat03"), (r"\w+\d\d(?=_)", "cat03"), (r"(cat|dog)0(\d)", "cat")]
)
def test_a_pattern_names_groups_by_its_first_group_or_as_a_whole(tmp_path, pattern, name):
    dataset = load_photos(animals(tmp_path), groups=pattern, needed=())
    assert next(one.group for one in dataset.records if "cat03" in one.id) == name
    assert all(len(places) == 1 for group, places in splits(dataset).items() if group)


def test_tables_and_lists_are_grouped_by_the_folder_of_a_photo(tmp_path):
    root = animals(tmp_path / "photos")
    files = sorted(root.rglob("*.jpg"))
    table = tmp_path / "photos.csv"
    rows = [f"{path.relative_to(tmp_path)},{path.parts[-3]}" for path in files]
    table.write_text("\n".join(["path,label", *rows]))
    for source in (table, [(path, path.parts[-3]) for path in files]):
        dataset = load_photos(source, groups="folder")
        assert {(one.group or "").split("/")[-1] for one in dataset.records} == {path.parent.name for path in files}
        assert all(len(places) == 1 for places in splits(dataset).values())
    table.write_text("\n".join(["path,label,group", *(f"{row},one" for row in rows)]))
    message = (
        r"--groups: expected none beside the groups that .*photos\.csv names itself, found 'folder'\. Leave out one"
    )
    with pytest.raises(UsageError, match=message):
        load_photos(table, groups="folder")


def test_groups_in_several_named_splits_are_told_and_stay(tmp_path):
    places = {
        f"{split}/{kind}/{name}": 3 for split in ("train", "test") for kind in ("cats", "dogs") for name in ("a", "b")
    }
    dataset = load_photos(fill(tmp_path, places), groups="folder", undivided=True)
    assert len(dataset.split("test")) == 12
    assert dataset.notes[1:] == (
        "groups: 24 photos in 4, the largest 6",
        "4 groups with 24 photos in several splits, for example 'cats/a' in train and test: the splits that are named stay, "
        "and figures may be too good",
    )


@pytest.mark.parametrize(
    ("groups", "kind", "message"),
    [
        ("[", UsageError, r"--groups: expected folder or a regular expression, found '\[': unterminated character set"),
        ("tom", UsageError, "--groups: expected a pattern that is found in the paths of photos, found 'tom', which is in none "
                            "of 144, for example 'cats/cat00/cat00_0.jpg'. Correct it."),
        ("", UsageError, "found '', which is in none of 144"),
        ("cats?/|dogs?/", CatdogError, "expected several groups of 'cats', found that group 'cats/' holds all of its photos. A "
                                       "group is never divided: make the groups smaller."),
        (r"(cat|dog)\d([0-5])", CatdogError, "expected several groups of 'cats', found that group 'cat'"),
        (r"cat[01]|dog", CatdogError, "expected several groups of 'dogs'"),
        (r"cat\d|dog\d", CatdogError, "expected photos of 'cats' in at least 3 groups, to draw the test and validation splits "
                                      "from, found 72 in 2. Groups, copies and near copies are not divided"),
    ],
)  # fmt: skip
def test_wrong_groups_are_one_line(tmp_path, groups, kind, message):
    if groups == r"(cat|dog)\d([0-5])":
        root = fill(tmp_path, {f"{name}s/{name}0{i}": 12 for name in ("cat", "dog") for i in range(2)})
    else:
        root = animals(tmp_path)
    with pytest.raises(kind, match=message if groups == "[" else re.escape(message)) as error:
        load_photos(root, groups=groups)
    assert type(error.value) is kind
    assert "\n" not in str(error.value)


def test_no_folders_below_the_classes_are_said(tmp_path):
    root = fill(tmp_path, {"cats": 12, "dogs": 12})
    message = "--groups folder: expected folders below those of the classes in .*, found that no photo lies in one, for example"
    with pytest.raises(UsageError, match=message):
        load_photos(root, groups="folder")


def test_large_groups_leave_the_smallest_to_each_split(tmp_path):
    places = {f"{kind}/{i}": size for kind in ("cats", "dogs") for i, size in enumerate((40, 30, 20, 10))}
    dataset = load_photos(fill(tmp_path, places), groups="folder")
    assert [len(dataset.split(split)) for split in ("train", "validation", "test")] == [140, 40, 20]
