"""Pickles of arrays are read; whatever else a pickle asks for does not happen."""

import os
import pickle

import numpy as np
import pytest
from helpers import checkpoint_files as files
from helpers.hostile_pickles import MakeDirectory

from catdog_jax.backbone import checkpoint_files, safe_pickle
from catdog_jax.errors import CatdogError

ARRAYS = {"a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "a.bias": np.float32([-1.5, 0, 7])}


def read_all(data: bytes) -> dict[str, np.ndarray]:
    tensors = checkpoint_files.parse(data, "file").tensors
    return {name: checkpoint_files.read(stored, "file") for name, stored in tensors.items()}


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "<i8", "|u1"])
def test_pickled_numpy_arrays_come_back(protocol, dtype):
    # Protocol 5 makes NumPy ask for another function, which is refused, as nobody publishes VGG16
    # in it.
    array = np.arange(6).reshape(2, 3).astype(dtype)
    data = files.array_pickle({"net/Conv_0/kernel": array}, protocol)
    if protocol == 5:
        with pytest.raises(CatdogError, match=r"asks for numpy\._core\.numeric\._frombuffer: refused"):
            read_all(data)
        return
    found = read_all(data)["net/Conv_0/kernel"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


@pytest.mark.parametrize("build", [files.torch_zip, files.torch_legacy])
def test_torch_files_are_read_without_torch(build):
    found = read_all(build(ARRAYS))
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_torch_itself_are_read(tmp_path, legacy):
    torch = pytest.importorskip("torch")
    weight = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    tensors = {
        "plain": weight,
        "view": weight[1, :, 1:],
        "permuted": weight.permute(0, 2, 3, 1),
        "double": weight.double(),
        "half": weight.half(),
        "parameter": torch.nn.Parameter(weight * 2),
        "count": torch.tensor(7),
        "nested": {"deeper": weight + 1},
        "epoch": 3,
    }
    torch.save(tensors, tmp_path / "file.pth", _use_new_zipfile_serialization=not legacy)
    found = read_all((tmp_path / "file.pth").read_bytes())
    tensors["nested/deeper"] = tensors.pop("nested")["deeper"]
    del tensors["epoch"]
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.detach().numpy())


@pytest.mark.parametrize(
    "layout", ["pickle", "pickle beside arrays", "torch zip", "torch legacy", "torch legacy magic"]
)
def test_a_malicious_payload_does_not_run(tmp_path, layout):
    canary = tmp_path / "canary"
    evil = pickle.dumps({"weights": MakeDirectory(canary)}, protocol=2)
    data = {
        "pickle": evil,
        "pickle beside arrays": pickle.dumps({**ARRAYS, "net": [MakeDirectory(canary)]}, protocol=3),
        "torch zip": files.torch_zip(ARRAYS, description=evil),
        "torch legacy": files.torch_legacy(ARRAYS, description=evil),
        # The magic number, and then a payload where the version should be.
        "torch legacy magic": files.torch_legacy(ARRAYS)[:15] + evil,
    }[layout]
    with pytest.raises(
        CatdogError, match=rf"^weights\.file: expected a pickle of arrays alone, .* {os.name}\.mkdir: refused\.$"
    ):
        checkpoint_files.parse(data, "weights.file")
    assert not canary.exists()
    pickle.loads(evil)
    assert canary.exists(), "the payload is harmless, and the test proves nothing"


@pytest.mark.parametrize(
    "name",
    [
        "builtins.eval",
        "builtins.getattr",
        "numpy.load",
        "numpy.core.multiarray.scalar",
        "numpy.ndarray.tofile",
        "torch.load",
        "torch._utils._rebuild_tensor_v2.__globals__",
        "collections.OrderedDict.__init__.__globals__",
        "catdog_jax.backbone.safe_pickle._ADMITTED",
    ],
)
def test_only_the_listed_names_are_admitted(name):
    module, _, attribute = name.rpartition(".")
    for data in (
        f"\x80\x02c{module}\n{attribute}\n.".encode("latin-1"),
        b"\x80\x04" + b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, attribute)) + b"\x93.",
    ):
        with pytest.raises(CatdogError, match="refused"):
            safe_pickle.load_arrays(data)


def test_a_pickle_cannot_alter_the_reader():
    # BUILD sets attributes on what lies below it: first on what stands for numpy.ndarray, then on
    # what makes a tensor.
    build = b"}" + files._text("stored") + b"Nsb"
    before = dict(vars(safe_pickle._Array)), dict(vars(safe_pickle._Tensor))
    safe_pickle.load_arrays(b"\x80\x02(cnumpy\nndarray\n" + build + b"ctorch._utils\n_rebuild_tensor\n" + build + b"t.")
    assert (dict(vars(safe_pickle._Array)), dict(vars(safe_pickle._Tensor))) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (files._number(0) + files._tuple((2, 3, 4)), files._number(1) + files._tuple((2, 3, 4))),  # begins too late
        (files._tuple((2, 3, 4)), files._tuple((2, 3, 5))),  # is larger than its storage
        (files._tuple((12, 4, 1)), files._tuple((13, 4, 1))),  # takes too long steps
        (files._tuple((12, 4, 1)), files._tuple((-12, 4, 1))),  # steps before its storage
        (files._tuple((12, 4, 1)), files._tuple((12, 4))),
    ],
)
def test_a_tensor_cannot_reach_beyond_its_storage(old, new):
    description = files.torch_description(ARRAYS)
    assert description.count(old) == 1
    with pytest.raises(CatdogError, match="damaged or truncated"):
        read_all(files.torch_zip(ARRAYS, description.replace(old, new)))


def test_a_storage_must_have_the_length_that_the_tensors_say():
    data = files.torch_zip({**ARRAYS, "a.bias": np.zeros(4, np.float32)}, files.torch_description(ARRAYS))
    with pytest.raises(CatdogError, match="storage 1 has 16 bytes for 12"):
        read_all(data)


def test_big_endian_torch_files_are_refused():
    with pytest.raises(CatdogError, match="expected little-endian numbers"):
        read_all(files.torch_zip(ARRAYS, byteorder=b"big"))


def test_object_arrays_are_refused():
    with pytest.raises(CatdogError, match="expected a pickle of NumPy arrays"):
        read_all(files.array_pickle({"a": np.array([{}, None])}))
