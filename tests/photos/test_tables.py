"""Tables of photos: what they may look like, and what is wrong with a row."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.photos import splitting
from catdog_jax.photos.sources import load_photos

PHOTOS = [
    (f"img/{i:02}.jpg", ("cat", "dog")[i % 2], ("train", "val", "TEST")[i // 2 % 3], f"g{i // 4}") for i in range(24)
]
HEADER = ("path", "label", "split", "group")


@pytest.fixture(autouse=True)
def _photos(tmp_path):
    """The files that the tables name."""
    (tmp_path / "img").mkdir()
    for name, *_ in PHOTOS:
        (tmp_path / name).write_bytes(name.encode())


def separated(header, rows, comma=",") -> str:
    return "".join(comma.join(cells) + "\n" for cells in (header, *rows))


def written(tmp_path: Path, text: str | bytes, name: str = "photos.csv") -> Path:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / name


def json_lines(header, rows) -> str:
    return "".join(json.dumps(dict(zip(header, cells, strict=True))) + "\n\n" for cells in rows)


def parquet(header, rows) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    sink = pyarrow.BufferOutputStream()
    files.write_table(pyarrow.table(dict(zip(header, zip(*rows, strict=True), strict=True))), sink)
    return sink.getvalue().to_pybytes()


FORMS = {
    "photos.csv": separated,
    "semicolons.csv": lambda header, rows: separated(header, rows, ";"),
    "photos.TSV": lambda header, rows: separated(header, rows, "\t"),
    "excel.csv": lambda header, rows: b"\xef\xbb\xbf" + separated(header, rows).replace("\n", "\r\n").encode(),
    "notepad.csv": lambda header, rows: separated(header, rows).encode("utf-16"),
    "quoted.csv": lambda header, rows: separated(header, [[f'"{cell}"' for cell in row] for row in rows]),
    "photos.jsonl": json_lines,
    "photos.parquet": parquet,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "header", [HEADER, ("File_Name", "Class", "SPLIT", "Group"), ("image", "label", "split", "group")]
)
def test_every_form_says_the_same(tmp_path, form, header):
    dataset = load_photos(written(tmp_path, FORMS[form](header, PHOTOS), form))
    assert dataset.source == str(tmp_path / form)
    assert dataset.classes == ("cat", "dog")
    assert dataset.drawn == ()
    assert all(note.startswith("groups: ") or "in several splits" in note for note in dataset.notes)
    found = {one.id: (one.label, one.split, one.group, one.size, one.read()) for one in dataset.records}
    splits = {"train": "train", "val": "validation", "TEST": "test"}
    assert found == {
        name: (int(label == "dog"), splits[split], group, len(name), name.encode())
        for name, label, split, group in PHOTOS
    }


def test_a_table_is_divided_as_its_photos_are_by_hand(tmp_path):
    rows = [row[:2] for row in PHOTOS]
    dataset = load_photos(written(tmp_path, separated(("path", "label"), rows)))
    assert dataset.drawn == ("test", "validation")
    for label in ("cat", "dog"):
        ranked = sorted(
            (name for name, kind in rows if kind == label), key=lambda name: hashlib.sha256(name.encode()).digest()
        )
        found = {one.id: one.split for one in dataset.records}
        assert [found[name] for name in ranked] == ["test", "validation"] + ["train"] * 10
    assert {one.group for one in dataset.records} == {None}


def test_validation_is_drawn_where_the_table_names_none(tmp_path):
    rows = [(name, label, "test" if i < 4 else "train") for i, (name, label, *_) in enumerate(PHOTOS)]
    dataset = load_photos(written(tmp_path, separated(HEADER[:3], rows)))
    assert dataset.drawn == ("validation",)
    assert [len(dataset.split(name)) for name in ("train", "validation", "test")] == [18, 2, 4]
    assert dataset.notes == ("found no validation split: 2 photos of train (1 'cat', 1 'dog') were drawn for it",)


def test_groups_share_their_text_and_stay_together(tmp_path):
    rows = [(name, label, group) for name, label, _, group in PHOTOS]
    dataset = load_photos(written(tmp_path, separated(("path", "label", "group"), rows)))
    texts, splits = {}, {}
    for one in dataset.records:
        texts.setdefault(one.group, set()).add(id(one.group))
        splits.setdefault(one.group, set()).add(one.split)
    assert all(len(found) == 1 for found in (*texts.values(), *splits.values()))


def test_numbers_and_nothing_are_read_as_they_are_meant(tmp_path):
    rows = [
        {"path": name, "label": int(label == "dog"), "group": [None, float(i // 2)][i // 4 % 2]}
        for i, (name, label, *_) in enumerate(PHOTOS)
    ]
    dataset = load_photos(written(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "photos.jsonl"))
    assert dataset.classes == ("0", "1")
    assert {one.group for one in dataset.records} == {None, *map(str, (2, 3, 6, 7, 10, 11))}


def test_absolute_paths_and_dots_are_followed(tmp_path):
    rows = [(f"./{name}" if i % 3 else str(tmp_path / name), label) for i, (name, label, *_) in enumerate(PHOTOS)]
    dataset = load_photos(written(tmp_path, separated(("path", "label"), rows)))
    assert {one.id for one in dataset.records} == {name.removeprefix("./") for name, _ in rows}
    assert {one.read() for one in dataset.records} == {name.encode() for name, *_ in PHOTOS}


def changed(number: int, **cells: str) -> str:
    """The table, where row `number` has other cells."""
    rows = [dict(zip(HEADER, row, strict=True)) for row in PHOTOS]
    rows[number - 2] |= cells
    return separated(HEADER, [[*row.values()] for row in rows])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(5, label=""), r"row 5, label: expected a label, found nothing\. Fill it in"),
        (changed(5, path=" "), r"row 5, path: expected the path of a photo, found nothing"),
        (changed(5, label="bird"), r"row 5, label: expected 'cat' or 'dog', as in the rows before, found 'bird'\. Keep two: to "
                                   r"train one against the rest, give all the others the same label"),
        (changed(5, label="a\tb"), r"row 5, label: expected text without control characters, found 'a\\tb'"),
        (changed(5, split="fold1"), r"row 5, split: expected train, validation or test, found 'fold1'\. Correct it"),
        (changed(5, split=""), r"row 5, split: expected a split, as other rows have one, found nothing"),
        (changed(9, path="img/01.jpg", label="dog"), r"row 9, path: expected each photo once, found 'img/01\.jpg' in row 3"),
        (changed(9, path="img/./01.jpg", label="cat"), r"row 9, label: expected one label for 'img/01\.jpg', found 'cat', and "
                                                       r"'dog' in row 3\. Correct one of them"),
        (changed(5, path="img"), r"path: expected 24 files, relative to .*, found that 1 are missing: 'img' \(row 5\)\."),
        (separated(HEADER[:2], [(f"{i}.jpg", "ab"[i % 2]) for i in range(6)]),
         r"found that 6 are missing: '0\.jpg' \(row 2\), '1\.jpg' \(row 3\), '2\.jpg' \(row 4\) and 3 more\. Correct"),
        (separated((*HEADER, "width"), [(*row, "9") for row in PHOTOS]),
         r"row 1: expected the columns path \(or file, filename, image\), label \(or class\) and perhaps split and group, "
         r"found 'width' too\. Remove what is not one of these"),
        (separated(PHOTOS[0], PHOTOS[1:]), r"row 1: expected the columns path .*, found 'img/00.jpg', 'cat', 'train', 'g0'\. "
                                          r"Write them into the header"),
        (separated(("path", "file", "label"), []), r"row 1: expected one column path, found 'path' and 'file'\. Remove one"),
        (separated(HEADER[:2], [row[:2] for row in PHOTOS[::2]]), r"expected two labels, found 'cat' alone"),
        (separated(HEADER[:2], []), r"expected rows of photos, found none"),
        ("", r"expected rows of photos, found none"),
        (separated(HEADER, [PHOTOS[0], PHOTOS[1][:3]]), r"row 3: expected 4 cells, as the header has, found 3"),
        ('path,label\n"img/1.jpg,cat\n', r"expected a table of cells, found: unexpected end of data"),
        (separated(HEADER[:2], [(row[0], f"{row[1]}é") for row in PHOTOS]).encode("latin-1"),
         r"expected UTF-8 or UTF-16, found other bytes\. Save it as UTF-8"),
        (separated(HEADER[:2], [row[:2] for row in PHOTOS[:8]]), r"expected at least 10 different photos of each class"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table_is_named(tmp_path, text, message):
    with pytest.raises(CatdogError, match=message) as error:
        load_photos(written(tmp_path, text))
    assert str(error.value).startswith(f"{tmp_path / 'photos.csv'}")
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", r"row 25: expected a JSON object, found '\[1\]'"),
        ("{", r"row 25: expected a JSON object, found '\{'"),
        ("[" * 100_000, r"row 25: expected a JSON object, found '\[\[\["),
        ('{"path": "img/01.jpg"}', r"row 25: expected the columns path .*, found 'path'\. Write"),
        ('{"path": {"bytes": ""}, "label": "dog"}', r"row 25, path: expected text, found dict"),
        ('{"path": "\\ud800", "label": "dog"}', r"1 are missing: '\\ud800' \(row 25\)"),
        ('{"path": "a\\u0000b", "label": "dog"}', r"1 are missing: 'a\\x00b' \(row 25\)"),
    ],
)
def test_what_is_wrong_with_a_line_of_json_is_named(tmp_path, line, message):
    text = json_lines(HEADER[:2], [row[:2] for row in PHOTOS]).replace("\n\n", "\n") + line
    with pytest.raises(CatdogError, match=message):
        load_photos(written(tmp_path, text, "photos.jsonl"))


def test_what_is_wrong_with_a_parquet_file_is_told(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    path = written(tmp_path, b"PAR1 and no more", "photos.parquet")
    with pytest.raises(CatdogError, match="expected a parquet file, found: "):
        load_photos(path)
    with pytest.raises(CatdogError, match=r"row 1: expected the columns path .*, found 'width' too"):
        load_photos(written(tmp_path, parquet((*HEADER, "width"), [(*row, 9) for row in PHOTOS]), "photos.parquet"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        UsageError, match=r"the package pyarrow, found that it is not installed\. Run: pip install pyarrow"
    ):
        load_photos(path)


def test_no_table_is_an_error(tmp_path):
    with pytest.raises(CatdogError, match=r"absent\.csv: expected a table of photos, found nothing\. Check --data"):
        load_photos(tmp_path / "absent.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(CatdogError, match=r"folder\.csv: expected a table of photos, found a folder"):
        load_photos(tmp_path / "folder.csv")
    with pytest.raises(
        CatdogError, match=r"found a file\. Name a folder, or a table \(\.csv, \.tsv, \.jsonl, \.parquet\)"
    ):
        load_photos(written(tmp_path, b"PK", "photos.zip"))


def test_few_photos_serve_an_evaluation(tmp_path):
    dataset = load_photos(written(tmp_path, separated(HEADER[:2], [row[:2] for row in PHOTOS[:8]])), needed=())
    assert (len(dataset.records), dataset.drawn) == (8, splitting.lacking(()))
