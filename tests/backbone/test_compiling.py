"""C++ that is compiled where it runs, and what happens where it cannot be."""

import os
import stat
import subprocess
import types

import numpy as np
import pytest

from catdog_jax.backbone import compiling
from catdog_jax.backbone.native import SOURCE
from catdog_jax.errors import CatdogError


@pytest.fixture(scope="module", autouse=True)
def _needs_a_compiler():
    try:
        compiling.find_compiler()
    except CatdogError as error:
        pytest.skip(str(error))


def test_no_compiler_is_told(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        CatdogError, match=r"expected a C\+\+ compiler \(no-such-compiler\) for native .*, found none\. Install"
    ):
        compiling.find_compiler()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CatdogError, match=r"\(c\+\+, g\+\+, clang\+\+\)"):
        compiling.find_compiler()


def test_a_compiler_that_fails_is_told_and_leaves_nothing(monkeypatch, tmp_path):
    broken = tmp_path / "broken.cpp"
    broken.write_text("int main( {")
    with pytest.raises(
        CatdogError, match=r"expected .* to compile native convolutions, found: .*error.* Set CXX to another\."
    ):
        compiling.compile_library(compiling.find_compiler(), broken, tmp_path / "cache" / "x.so")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        CatdogError, match=r"file: expected to compile native convolutions into it, found .* CATDOG_CACHE"
    ):
        compiling.compile_library(compiling.find_compiler(), SOURCE, tmp_path / "file" / "x.so")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX")
def test_a_library_that_others_can_write_is_refused(tmp_path):
    library = tmp_path / "x.so"
    library.write_bytes(b"")
    library.chmod(0o700)
    tmp_path.chmod(0o700)
    compiling._check_owner(library)
    library.chmod(stat.S_IRWXU | stat.S_IWGRP)
    with pytest.raises(CatdogError, match=r"x\.so: expected native convolutions that nobody else can write, found"):
        compiling._check_owner(library)


def test_another_source_or_compiler_is_another_library(monkeypatch, tmp_path):
    compiler = compiling.find_compiler()
    key = compiling._key(compiler, SOURCE)
    assert key == compiling._key(compiler, SOURCE)
    monkeypatch.setattr(compiling, "_FLAGS", (*compiling._FLAGS, "-g"))
    assert compiling._key(compiler, SOURCE) != key
    monkeypatch.undo()
    version = types.SimpleNamespace(stdout="another")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: version)
    assert compiling._key(compiler, SOURCE) != key


def test_another_header_is_another_library(tmp_path):
    source, compiler = tmp_path / "one.cpp", compiling.find_compiler()
    source.write_text("")
    before = compiling._key(compiler, source)
    (tmp_path / "one.h").write_text("int x;")
    assert compiling._key(compiler, source) != before


@pytest.mark.parametrize("shape", [7, (3, 5), (2, 1, 33)])
def test_arrays_begin_where_xla_takes_them_as_they_are(shape):
    for dtype in (np.float32, np.uint16):
        found = compiling.aligned(shape, dtype)
        assert (found.dtype, found.shape) == (dtype, np.empty(shape).shape)
        assert found.ctypes.data % 64 == 0
