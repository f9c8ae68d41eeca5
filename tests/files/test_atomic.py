"""Either the old file or the whole new one; and JSON that knows when it was altered."""

import json
import os

import pytest

from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic, sealed


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    atomic.write_bytes(path, b"old")

    def write_and_fail() -> None:
        with atomic.atomic_writer(path) as file:
            file.write(b"new, half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_and_fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_is_named_with_the_path(tmp_path, monkeypatch, step):
    def fail(*_) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    atomic.write_bytes(path, b"old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(CatdogError, match=r"file: cannot be written: No space left on device\. Free space"):
        atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_directories_are_made(tmp_path):
    atomic.write_bytes(tmp_path / "a" / "b" / "c", b"x")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"x"


def test_a_file_where_a_directory_is_needed_is_an_error(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(CatdogError, match="cannot be written"):
        atomic.write_bytes(tmp_path / "a" / "b", b"x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a thing, found no file"),
        (b"{", "expected a thing in JSON"),
        (b"[1]", "found a list"),
        (b"\xff", "in JSON"),
    ],
)
def test_what_is_not_a_json_object_is_an_error(tmp_path, content, message):
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CatdogError, match=message):
        sealed.read_json(path, "thing")


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        sealed.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_sealed_file_notices_every_changed_byte(tmp_path):
    path = tmp_path / "sealed.json"
    value = {"name": "\udcff\n", "rows": [1, 2.5, None], "nested": {"b": 1, "a": 2}}
    sealed.write_sealed_json(path, value)
    assert sealed.read_sealed_json(path, "thing") == value
    intact = path.read_bytes()
    for place in range(len(intact)):
        for bit in (0, 3, 6):
            altered = bytearray(intact)
            altered[place] ^= 1 << bit
            path.write_bytes(altered)
            with pytest.raises(CatdogError):
                sealed.read_sealed_json(path, "thing")
    path.write_text(json.dumps(value))
    with pytest.raises(CatdogError, match="it is altered"):
        sealed.read_sealed_json(path, "thing")


def test_the_cache_directory_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path))
    assert atomic.cache_directory() == tmp_path
    monkeypatch.delenv("CATDOG_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert atomic.cache_directory() == tmp_path / "home" / ".cache" / "catdog_jax"
