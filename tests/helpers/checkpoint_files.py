"""Builds the content of checkpoint files for tests, without the programs that usually write them."""

import io
import pickle
import zipfile

import numpy as np
import safetensors.numpy

Arrays = dict[str, np.ndarray]


def h5(arrays: Arrays, attributes: dict[str, dict[str, list[str]]] | None = None) -> bytes:
    """An HDF5 file; "/" in a name makes a group. `attributes` are lists of texts, by the path of their group."""
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        for path, texts in (attributes or {}).items():
            for key, values in texts.items():
                file[path].attrs[key] = np.array([value.encode() for value in values])
    return content.getvalue()


def keras_zip(content: bytes) -> bytes:
    """A .keras file around the content of a .weights.h5 file."""
    archived = io.BytesIO()
    with zipfile.ZipFile(archived, "w") as archive:
        for name, data in {"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": content}.items():
            archive.writestr(name, data)
    return archived.getvalue()


def npz(arrays: Arrays) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def safetensors_file(arrays: Arrays, metadata: dict[str, str] | None = None) -> bytes:
    return safetensors.numpy.save(arrays, metadata)


def array_pickle(arrays: Arrays, protocol: int = 3) -> bytes:
    """A pickle of nested dictionaries, one for each "/" in the names."""
    tree: dict = {}
    for name, array in arrays.items():
        *groups, leaf = name.split("/")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[leaf] = array
    return pickle.dumps(tree, protocol=protocol)


def torch_zip(arrays: Arrays, description: bytes | None = None, byteorder: bytes = b"little") -> bytes:
    """What torch.save has written since PyTorch 1.6."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", torch_description(arrays) if description is None else description)
        archive.writestr("archive/byteorder", byteorder)
        for key, array in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{key}", array.astype("<f4").tobytes())
        archive.writestr("archive/version", b"3\n")
    return content.getvalue()


def torch_legacy(arrays: Arrays, description: bytes | None = None) -> bytes:
    """What torch.save wrote before PyTorch 1.6."""
    magic, version, system = 0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}
    keys = [str(key) for key in range(len(arrays))]
    parts = [pickle.dumps(value, protocol=2) for value in (magic, version, system)]
    parts.append(torch_description(arrays, "_rebuild_tensor", legacy=True) if description is None else description)
    parts.append(pickle.dumps(keys, protocol=2))
    parts += [array.size.to_bytes(8, "little") + array.astype("<f4").tobytes() for array in arrays.values()]
    return b"".join(parts)


def torch_description(arrays: Arrays, rebuild: str = "_rebuild_tensor_v2", legacy: bool = False) -> bytes:
    """The pickle of an OrderedDict of torch tensors, opcode by opcode (see pickletools.dis of a real one)."""
    out = b"\x80\x02ccollections\nOrderedDict\n)R("
    for key, (name, array) in enumerate(arrays.items()):
        strides = [step // array.itemsize for step in np.ascontiguousarray(array).strides]
        storage = (
            b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text(str(key)) + _text("cpu") + _number(array.size)
        )
        tail = b"" if rebuild == "_rebuild_tensor" else b"\x89ccollections\nOrderedDict\n)R"  # requires_grad, hooks
        out += _text(name) + f"ctorch._utils\n{rebuild}\n(".encode() + storage + (b"N" if legacy else b"") + b"tQ"
        out += _number(0) + _tuple(array.shape) + _tuple(strides) + tail + b"tR"
    return out + b"u."


def _text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def _number(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little", signed=True)


def _tuple(values) -> bytes:
    return b"(" + b"".join(_number(value) for value in values) + b"t"
