"""Photos sorted into folders: nothing is lost, moved or written over, whatever they are called."""

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.models import save_grey

from catdog_jax.errors import CatdogError
from catdog_jax.photos.decoding import ImageError
from catdog_jax.runtime.decision import Rule
from catdog_jax.runtime.sorting import Sorter

WAYS = ("copy", "hardlink", "symlink")
CLASSES = ("cats", "dogs")


def verdict(second: float, classes: tuple[str, str] = CLASSES):
    return Rule(classes, abstain_below=0.8).decide(np.array([1 - second, second], np.float32))


CAT, DOG, UNSURE = verdict(0.1), verdict(0.9), verdict(0.6)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = []
    for i, name in enumerate(("a/1.png", "b/1.png", "c/1.PNG", "a/2.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        paths.append(save_grey(tmp_path / name, 10 * i))
    paths[1].write_bytes(paths[0].read_bytes())  # a copy of another photo is one more photo
    return paths


def below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("way", WAYS)
def test_photos_lie_by_class_under_their_names_and_twice_is_once(photos: list[Path], tmp_path: Path, way: str) -> None:
    before = {path: path.read_bytes() for path in photos}
    for _ in range(2):
        sorter = Sorter(tmp_path / "out", way, CLASSES)
        put = [sorter.put(photo, said) for photo, said in zip(photos, (CAT, CAT, CAT, UNSURE), strict=True)]
        names = [path.relative_to(tmp_path / "out").as_posix() for path in put]
        assert names == ["cats/1.png", "cats/1-2.png", "cats/1-3.PNG", "unsure/2.png"]
        assert below(tmp_path / "out") == dict(zip(names, before.values(), strict=True))
    assert {path: path.read_bytes() for path in photos} == before
    assert put[0].is_symlink() == (way == "symlink")
    assert put[0].samefile(photos[0]) == (way != "copy")
    if way == "copy":
        assert put[0].stat().st_mtime_ns == photos[0].stat().st_mtime_ns


@pytest.mark.parametrize("way", WAYS)
def test_a_file_of_somebody_else_is_never_written_over(photos: list[Path], tmp_path: Path, way: str) -> None:
    out = tmp_path / "out" / "dogs"
    out.mkdir(parents=True)
    (out / "1.png").write_bytes(b"mine")
    (out / "1-2.png").symlink_to("nowhere")
    (out / "1-3.png").mkdir()
    assert Sorter(tmp_path / "out", way, CLASSES).put(photos[0], DOG) == out / "1-4.png"
    assert (out / "1.png").read_bytes() == b"mine"
    assert os.readlink(out / "1-2.png") == "nowhere"


def test_a_disk_without_hard_links_takes_copies(photos: list[Path], tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    put = Sorter(tmp_path / "out", "copy", CLASSES).put(photos[0], CAT)
    assert put.read_bytes() == photos[0].read_bytes()
    assert [path.name for path in put.parent.iterdir()] == ["1.png"]
    with pytest.raises(
        CatdogError, match=r"a hardlink of '1\.png' cannot be made: .* Use --sort-with copy, or a folder on"
    ):
        Sorter(tmp_path / "other", "hardlink", CLASSES).put(photos[0], CAT)


def test_a_full_disk_leaves_no_half_of_a_copy(photos: list[Path], tmp_path: Path, monkeypatch) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:9])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copy2", full)
    with pytest.raises(CatdogError, match=r"cats: a copy of '1\.png' cannot be made: No space left on device\. Free"):
        Sorter(tmp_path / "out", "copy", CLASSES).put(photos[0], CAT)
    assert below(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("classes", "folders"),
    [
        (("../a", "/b\\c"), [".._a", "_b_c", "unsure"]),
        (("..", "."), ["_", "_-2", "unsure"]),
        (("Unsure", "sure"), ["Unsure", "sure", "unsure-2"]),
        (("Cats", "cats"), ["Cats", "cats-2", "unsure"]),
    ],
)
def test_no_class_leads_out_of_the_folder_or_into_another(photos: list[Path], tmp_path: Path, classes, folders) -> None:
    sorter = Sorter(tmp_path / "out" / "deep", "copy", classes)
    found = [sorter.put(photos[0], verdict(p, classes)).relative_to(tmp_path / "out" / "deep") for p in (0.1, 0.9, 0.6)]
    assert [path.parent.as_posix() for path in found] == folders


@pytest.mark.skipif(os.name != "posix", reason="needs a file system that admits any bytes as a name")
def test_odd_names_and_stdin(tmp_path: Path) -> None:
    names = ["two\nlines.png", "x" * 251 + ".png", "\udce9.png", "-", ".png"]
    out = tmp_path / "out"
    sorter = Sorter(out, "copy", CLASSES)
    put = [sorter.put(save_grey(tmp_path / name, 9), CAT).name for name in names]
    assert put == ["two\nlines.png", "x" * 200 + ".png", "\udce9.png", "-", ".png"]
    data = (tmp_path / ".png").read_bytes()
    for way in WAYS:  # nothing to link to
        assert Sorter(out, way, CLASSES).put(data, CAT).name == "stdin.png"
    assert Sorter(out, "copy", CLASSES).put(b"odd", CAT).name == "stdin"


@pytest.mark.parametrize("way", WAYS)
def test_a_photo_that_has_gone_is_a_row_with_the_error(tmp_path: Path, way: str) -> None:
    with pytest.raises(ImageError, match=re.escape("found nothing: it has gone since it was predicted")):
        Sorter(tmp_path / "out", way, CLASSES).put(tmp_path / "gone.jpg", CAT)
    assert not (tmp_path / "out").exists()
