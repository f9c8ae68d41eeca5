"""Each kind of file is told by its content, and damage or a trap in it is one clear error."""

import io
import pickle
import random
import sys
import tracemalloc
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from helpers import checkpoint_files as files

from catdog_jax.backbone import checkpoint_files
from catdog_jax.errors import CatdogError, UsageError

ARRAYS = {"a/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "a/bias": np.float32([-1.5, 0, 7])}
KINDS: dict[str, Callable[..., bytes]] = {
    "h5": files.h5,
    "keras": lambda arrays: files.keras_zip(files.h5(arrays)),
    "npz": files.npz,
    "safetensors": files.safetensors_file,
    "pickle": files.array_pickle,
    "torch zip": files.torch_zip,
    "torch legacy": files.torch_legacy,
}


def read_all(data: bytes) -> dict[str, np.ndarray]:
    tensors = checkpoint_files.parse(data, "file").tensors
    return {name: checkpoint_files.read(stored, "file") for name, stored in tensors.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_told_by_its_content(kind):
    if kind in ("h5", "keras"):
        pytest.importorskip("h5py")
    data = KINDS[kind](ARRAYS)
    checkpoint = checkpoint_files.parse(data, "file")
    assert {name: (stored.shape, stored.dtype) for name, stored in checkpoint.tensors.items()} == {
        name: (array.shape, array.dtype) for name, array in ARRAYS.items()
    }
    for name, array in read_all(data).items():
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_metadata_of_safetensors():
    assert checkpoint_files.parse(files.safetensors_file(ARRAYS, {"mode": "torch"}), "file").metadata == {
        "mode": "torch"
    }
    assert checkpoint_files.parse(files.safetensors_file(ARRAYS), "file").metadata == {}


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "an empty file"),
        (b"<html><title>Not found</title>", "unknown content beginning with b'<html><t'"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "unknown content"),
        (b"PK\x03\x04" + bytes(100), "damaged or truncated"),
    ],
)
def test_foreign_files_are_named(data, found):
    with pytest.raises(CatdogError) as caught:
        checkpoint_files.parse(data, "folder/file.h5")
    assert str(caught.value).startswith("folder/file.h5: expected ")
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_zip_archive_of_other_things_is_named():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(
        CatdogError, match=r"expected a \.pth, \.keras or \.npz file, found a zip archive of config\.json"
    ):
        checkpoint_files.parse(content.getvalue(), "model.keras")


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_an_error(kind):
    if kind in ("h5", "keras"):
        pytest.importorskip("h5py")
    data = KINDS[kind](ARRAYS)
    for length in range(0, len(data) - 1, max(1, len(data) // 60)):
        with pytest.raises(CatdogError, match=r"^file: expected .*, found "):
            read_all(data[:length])


@pytest.mark.parametrize("kind", ["npz", "safetensors", "pickle", "torch zip", "torch legacy"])
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_damage_never_escapes_as_another_error(kind):
    data = KINDS[kind](ARRAYS)
    generator = random.Random(kind)
    refused = 0
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(data))] = generator.randrange(256)
        try:
            read_all(bytes(damaged))
        except CatdogError:
            refused += 1
    assert refused > 10  # in a small file the rest hits the numbers themselves, or padding


def test_npz_of_objects_is_refused_and_not_unpickled(tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path / "canary").mkdir, ()

    content = io.BytesIO()
    np.savez(content, kernel=np.array([Payload()], dtype=object))
    with pytest.raises(CatdogError, match="Object arrays cannot be loaded"):
        read_all(content.getvalue())
    assert not (tmp_path / "canary").exists()


def test_sizes_are_known_before_data_are_decompressed():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (16, 2**20)})
        for _ in range(64):
            member.write(bytes(2**20))
    tracemalloc.start()
    try:
        shape = checkpoint_files.parse(content.getvalue(), "file").tensors["bomb"].shape
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert shape == (16, 2**20)


@pytest.mark.parametrize("trap", ["soft", "external", "model_weights"])
def test_h5_links_are_refused(tmp_path, trap):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.zeros(3)
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["a/kernel"] = np.zeros(3)
        external = h5py.ExternalLink(str(tmp_path / "other.h5"), "secret")
        file["model_weights" if trap == "model_weights" else "a/bias"] = (
            h5py.SoftLink("/a/kernel") if trap == "soft" else external
        )
    with pytest.raises(CatdogError, match=r"found a link at .*: refused"):
        checkpoint_files.parse(content.getvalue(), "file")


@pytest.mark.parametrize("trap", ["external", "virtual", "chunks"])
def test_h5_data_elsewhere_are_refused(tmp_path, trap):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "secret").write_bytes(bytes(12))
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        if trap == "external":
            file.create_dataset("a", (3,), "<f4", external=[(str(tmp_path / "secret"), 0, 12)])
        elif trap == "virtual":
            layout = h5py.VirtualLayout((3,), "<f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "secret", (3,))
            file.create_virtual_dataset("a", layout)
        else:
            file.create_dataset("a", (3,), "<f4", maxshape=(None,), chunks=(2**26,), compression="gzip")
    with pytest.raises(CatdogError, match="refused"):
        checkpoint_files.parse(content.getvalue(), "file")


def test_groups_that_contain_themselves_end():
    h5py = pytest.importorskip("h5py")
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name in "abc":
            file[name] = file["/"]
    tree: dict = {}
    tree.update({"a": tree, "b": tree})
    for data in (content.getvalue(), pickle.dumps(tree, protocol=3)):
        with pytest.raises(CatdogError, match="found more than 10,000 entries"):
            checkpoint_files.parse(data, "file")


def test_h5_without_h5py_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"^file\.h5: Keras files need h5py.* pip install 'catdog-jax\[weights\]'"):
        checkpoint_files.parse(b"\x89HDF\r\n\x1a\n" + bytes(100), "file.h5")


@pytest.mark.parametrize("offsets", [[0, 10**12], [4, 0], [-8, 4], [0, 8]])
def test_safetensors_cannot_reach_beyond_the_file(offsets):
    data = files.safetensors_file({"a": np.zeros(3, np.float32)})
    header = data[8 : 8 + int.from_bytes(data[:8], "little")].replace(b"[0,12]", str(offsets).encode())
    assert str(offsets).encode() in header
    with pytest.raises(CatdogError, match="the data of a do not lie in the file"):
        checkpoint_files.parse(len(header).to_bytes(8, "little") + header + bytes(12), "file")
