"""Which photos are meant: lists in every form, stdin, Windows' paths, URLs, results that lie among the photos."""

import io
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.models import save_grey

from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.photos import decoding
from catdog_jax.runtime import inputs, prediction
from catdog_jax.runtime.inputs import find_photos, meant, url


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


NAMES = ["a.jpg", "with space.jpg", "-", "#no comment.jpg", "caf\udce9.jpg", "ends\r"]
FORMS = {
    "lines": ("\n".join(NAMES[:5]), False),
    "lines that end": ("\n".join(NAMES) + "\n", False),
    "Windows' lines": ("\r\n".join(NAMES[:5]) + "\r\n\r\n", False),
    "NUL characters": ("\0".join([*NAMES, "two\nlines.jpg", " "]) + "\0", True),
}


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that admits any bytes as a name")
@pytest.mark.parametrize("through", ["file", "stdin"])
@pytest.mark.parametrize("form", FORMS)
def test_a_list_names_any_path(here: Path, monkeypatch: pytest.MonkeyPatch, form: str, through: str) -> None:
    text, null = FORMS[form]
    names = [name for name in [*NAMES, "two\nlines.jpg", " "] if name in re.split("\0" if null else "\r?\n", text)]
    if "ends\r" in text and not null:
        names.append("ends\r")
        Path("ends\r").touch()  # what is there is meant as it is
    Path("list").write_bytes(os.fsencode(text))
    stdin(monkeypatch, os.fsencode(text))
    found = find_photos((), "list" if through == "file" else "-", null)
    assert list(map(str, found)) == names


def test_lists_of_windows_programs(here: Path) -> None:
    (here / "photos" / "cats").mkdir(parents=True)
    save_grey(here / "photos" / "cats" / "größe 1.png", 9)
    text = '"photos\\cats\\größe 1.png"\r\nphotos\\cats\r\nphotos\\gone.jpg\r\n'
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        Path("list.txt").write_bytes(text.encode(encoding))
        assert find_photos((), "list.txt") == [Path("photos/cats/größe 1.png")] * 2 + [Path("photos\\gone.jpg")]
    Path("list.txt").write_bytes(b"\xff\xfea")
    with pytest.raises(CatdogError, match=r"--list list.txt: expected a list of paths, found damaged UTF-16"):
        find_photos((), "list.txt")


def test_paths_of_windows_are_found_where_linux_has_them(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_DRIVES", here / "mnt")
    (here / "mnt" / "c" / "pets").mkdir(parents=True)
    save_grey(here / "mnt" / "c" / "pets" / "1.png", 9)
    assert meant(r"C:\pets\1.png") == here / "mnt" / "c" / "pets" / "1.png"
    assert meant("c:\\pets\\2.png") == Path("c:\\pets\\2.png")  # not there: said as it was given
    save_grey(Path("back\\slash.png"), 9)
    assert meant("back\\slash.png") == Path("back\\slash.png")
    assert meant(r"\\server\share\1.png") == Path(r"\\server\share\1.png")


def test_a_list_without_paths_is_an_error(here: Path) -> None:
    Path("list").write_bytes(b"\n \r\n\n")
    with pytest.raises(CatdogError, match=r"--list list: expected photos \(.*\), found none\. Check the path"):
        find_photos((), "list")
    Path("list").write_bytes(b"a.jpg\0b.jpg\0")
    with pytest.raises(UsageError, match=r"--list list: expected a path a line, found NUL characters\. Add --null\."):
        find_photos((), "list")
    with pytest.raises(UsageError, match=r"1.png: expected a list of paths, found a photo\. Name it without --list\."):
        find_photos((), str(save_grey(Path("1.png"), 9)))
    with pytest.raises(CatdogError, match=r"--list \.: expected a list of paths, found: Is a directory"):
        find_photos((), ".")


def test_a_photo_on_stdin_is_read_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save_grey(Path("1.png"), 9).read_bytes()
    stdin(monkeypatch, data)
    assert find_photos(["1.png", "-"]) == [Path("1.png"), data]
    assert [inputs.named(photo) for photo in ("1.png", data)] == ["1.png", "-"]
    stdin(monkeypatch, data)
    save_grey(Path("-"), 9)
    assert find_photos(["./-"]) == [Path("-")]  # a file of that name
    with pytest.raises(UsageError, match="-: expected to read standard input once, found it named twice"):
        find_photos(["-", "-"])
    monkeypatch.setattr(decoding, "MAX_BYTES", 10)
    with pytest.raises(CatdogError, match="standard input: expected at most 10 bytes, found more"):
        find_photos(["-"])
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(CatdogError, match="standard input: cannot be read: it is closed"):
        find_photos(["-"])


@pytest.mark.parametrize("text", ["http://a/b.jpg", "https:/a/b.jpg", "FTP://x", "s3://b/c", "file:///etc/x.jpg"])
def test_a_url_is_an_error_that_says_so_and_a_row_of_a_list(here: Path, text: str) -> None:
    with pytest.raises(
        UsageError, match=r"^\w+://[^:]*: expected a file or a folder, found a URL; nothing is fetched\."
    ):
        find_photos([text])
    Path("list").write_text(f"{text}\n")
    (photo,) = find_photos((), "list")
    assert photo == text
    with pytest.raises(decoding.ImageError, match="found a URL: nothing is fetched; download it first"):
        prediction.upright(photo)
    Path(text).parent.mkdir(parents=True)
    Path(text).touch()  # whatever its name, a file that is there is one
    assert url(text) is None


@pytest.mark.parametrize("text", ["C:/a.jpg", "a:b.jpg", "a/http://b", "1http://b", "://x"])
def test_what_is_no_url(text: str) -> None:
    assert url(text) is None


def test_results_among_the_photos_are_left_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("photos/1.png", "photos/sorted/cats/1.png", "photos/sorted-2/2.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        save_grey(Path(name), 9)
    found = find_photos(["photos"], without=[Path("photos/sorted"), Path("nowhere")])
    assert found == [Path("photos/1.png"), Path("photos/sorted-2/2.png")]
    assert capsys.readouterr().err == "left out: 1 results of this command\n"
    assert find_photos(["photos/sorted/cats/1.png"], without=[Path("photos")]) == [Path("photos/sorted/cats/1.png")]
