"""Reads checkpoint files of any program as named tensors.

The kind of file is told by its content. A tensor's shape and type are known before its data are
touched, so whoever asks decides what is worth reading.
"""

import io
import itertools
import json
import math
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from catdog_jax.backbone import safe_pickle
from catdog_jax.backbone.safe_pickle import Stored, checked_shape, from_buffer
from catdog_jax.errors import CatdogError, UsageError

MAX_ENTRIES = 10_000  # groups, dictionaries' items and tensors; a VGG16 checkpoint has some 60
MAX_NAME = 2**12  # characters of a tensor's name
_TORCH_MAGIC = b"\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little")  # opens PyTorch files from before 1.6
_KERAS_WEIGHTS = "model.weights.h5"  # in a .keras file, beside the configuration, which is not read
_SAFETENSORS_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8"}
_DAMAGE: tuple[type[Exception], ...] = (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError)
_DAMAGE += (RuntimeError, OverflowError, MemoryError, StopIteration, pickle.UnpicklingError, zipfile.BadZipFile)
_DAMAGE += (zlib.error, struct.error, SyntaxError, tokenize.TokenError)  # NumPy takes .npz' headers for Python
_DAMAGE += (Warning,)  # of pickletools and NumPy, where warnings are errors


class Checkpoint(NamedTuple):
    """What a file holds.

    Attributes:
      kind: the kind of file, for messages.
      tensors: by name; the levels of nested containers are joined by "/".
      metadata: the texts that a .safetensors file carries; empty for other kinds.
    """

    kind: str
    tensors: dict[str, Stored]
    metadata: dict[str, str]


def parse(data: bytes, where: str) -> Checkpoint:
    """Finds out what kind of file `data` is and lists its tensors.

    The data are the whole file: Keras' .h5 (any version) or .keras, PyTorch's .pth (zip or
    older), a pickle of NumPy arrays, .safetensors or .npz. `where` is its name, for the errors.

    Raises:
      CatdogError: another kind of file, a damaged or truncated one, or one that asks for more than
        arrays.
      UsageError: a Keras file, and h5py is not installed.
    """
    kind, read_tensors = _detect(data, where)
    try:
        tensors = read_tensors(data)
        texts = _safetensors_header(data).get("__metadata__", {}) if read_tensors is _read_safetensors else {}
        metadata = {str(key): str(value) for key, value in texts.items()}
    except CatdogError as error:
        raise type(error)(f"{where}: {error}") from None
    except _DAMAGE as error:
        raise _damaged(where, kind, error) from None
    return Checkpoint(kind, tensors, metadata)


def read(stored: Stored, where: str) -> np.ndarray:
    """The data of one tensor, in its stored type.

    Raises:
      CatdogError: the data are damaged or truncated.
    """
    try:
        return stored.read()
    except _DAMAGE as error:
        raise _damaged(where, "whole file", error) from None


def _damaged(where: str, kind: str, error: BaseException) -> CatdogError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return CatdogError(f"{where}: expected a {kind}, found a damaged or truncated one ({reason}). Get the file again.")


def _detect(data: bytes, where: str) -> tuple[str, Callable[[bytes], dict[str, Stored]]]:
    """The kind of file, and what reads it."""
    if data.startswith(b"\x89HDF\r\n\x1a\n"):
        return "Keras .h5 file", _read_h5
    if data.startswith(b"PK"):
        try:
            names = zipfile.ZipFile(io.BytesIO(data)).namelist()
        except _DAMAGE as error:
            raise _damaged(where, ".pth, .keras or .npz file", error) from None
        if _KERAS_WEIGHTS in names:
            return ".keras file", _read_keras
        if any(name.endswith("/data.pkl") for name in names):
            return "PyTorch .pth file", _pickled(safe_pickle.load_torch_zip)
        if all(name.endswith(".npy") for name in names):
            return ".npz file", _read_npz
        raise CatdogError(
            f"{where}: expected a .pth, .keras or .npz file, found a zip archive of {', '.join(names[:3])}."
        )
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data):  # the length of a header in JSON
        return ".safetensors file", _read_safetensors
    if _TORCH_MAGIC in data[:16]:
        return "PyTorch .pth file", _pickled(safe_pickle.load_torch_legacy)
    if data.startswith(b"\x80"):
        return "pickle of NumPy arrays", _pickled(safe_pickle.load_arrays)
    found = f"unknown content beginning with {data[:8]!r}" if data else "an empty file"
    raise CatdogError(f"{where}: expected weights in .h5, .keras, .pth, .ckpt, .safetensors or .npz, found {found}.")


def _walk(root: Any, expand: Callable[[str, Any], Stored | Iterable[tuple[Any, Any]]]) -> dict[str, Stored]:
    """Collects the tensors of a tree, in bounded time even where the tree contains itself.

    `expand` gives, for a node's name and the node, the tensor that it is, or its children.
    """
    tensors: dict[str, Stored] = {}
    pending, seen = deque([("", root)]), 0
    while pending:
        name, node = pending.popleft()
        content = expand(name, node)
        if isinstance(content, Stored):
            tensors[name] = content
            continue
        for key, child in content:
            if not isinstance(key, str | int) or len(name) > MAX_NAME:
                raise CatdogError(
                    "expected tensors with names, found a key that is no text or number, or without an end."
                )
            pending.append((f"{name}/{key}" if name else str(key), child))
            seen += 1
            if seen > MAX_ENTRIES:
                raise CatdogError(f"expected the tensors of one network, found more than {MAX_ENTRIES:,} entries.")
    return tensors


def _safetensors_header(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    if length > safe_pickle.MAX_DESCRIPTION:
        raise CatdogError(f"expected a header of at most {safe_pickle.MAX_DESCRIPTION:,} bytes, found {length:,}.")
    return json.loads(data[8 : 8 + length])


def _read_safetensors(data: bytes) -> dict[str, Stored]:
    body = memoryview(data)[8 + int.from_bytes(data[:8], "little") :]
    header = _safetensors_header(data)

    def expand(name: str, node: Any) -> Stored | Iterable[tuple[str, Any]]:
        if not name:
            return ((key, entry) for key, entry in node.items() if key != "__metadata__")
        shape, (begin, end) = checked_shape(node["shape"]), node["data_offsets"]
        # V1: no number, refused by who asks for numbers
        dtype = np.dtype(_SAFETENSORS_DTYPES.get(node["dtype"], "V1"))
        if not 0 <= begin <= end <= len(body) or (
            dtype.kind != "V" and end - begin != math.prod(shape) * dtype.itemsize
        ):
            raise ValueError(f"the data of {name} do not lie in the file")
        return Stored(shape, dtype, lambda: from_buffer(body, dtype, shape, begin))

    tensors = _walk(header, expand)
    places = sorted((*header[name]["data_offsets"], name) for name in tensors)
    for (_, end, name), (begin, _, other) in itertools.pairwise(places):
        if begin < end:
            raise ValueError(f"the data of {name} and {other} overlap")
    return tensors


def _read_npz(data: bytes) -> dict[str, Stored]:
    archive = zipfile.ZipFile(io.BytesIO(data))

    def read_member(member: str) -> np.ndarray:
        with archive.open(member) as file:
            return np.lib.format.read_array(file, allow_pickle=False)

    def expand(name: str, member: str) -> Stored | Iterable[tuple[str, str]]:
        if not name:
            return ((item.removesuffix(".npy"), item) for item in archive.namelist())
        with archive.open(member) as file:
            # The others are for headers of more than 64 KiB, up to 4 GiB
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError(f"{member} has a header of another version than 1.0")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return Stored(shape, dtype, lambda: read_member(member))

    return _walk("", expand)


def _read_h5(data: bytes) -> dict[str, Stored]:
    try:
        import h5py
    except ImportError:
        raise UsageError(
            "Keras files need h5py, found none installed. Run: pip install 'catdog-jax[weights]'"
        ) from None
    file = h5py.File(io.BytesIO(data), "r")

    def children(name: str, group: Any) -> Iterable[tuple[str, Any]]:
        for key in group:
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise CatdogError(f"expected plain groups and data sets, found a link at {name}/{key}: refused.")
            yield key, group[key]

    def expand(name: str, node: Any) -> Stored | Iterable[tuple[str, Any]]:
        if not isinstance(node, h5py.Dataset):
            return children(name, node)
        if node.external or node.is_virtual:
            raise CatdogError(f"expected data inside the file, found {name} in another file: refused.")
        if node.chunks and math.prod(node.chunks) > node.size:
            raise CatdogError(f"expected chunks smaller than their data set, found larger ones in {name}: refused.")
        return Stored(node.shape or (), node.dtype, lambda: node[()])

    # `model.save` puts the weights into a group, beside the optimizer's; `save_weights` puts them
    # at the top.
    whole_model = isinstance(file.get("model_weights", getlink=True), h5py.HardLink)
    return _walk(file["model_weights"] if whole_model else file, expand)


def _read_keras(data: bytes) -> dict[str, Stored]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    member = archive.getinfo(_KERAS_WEIGHTS)
    if member.compress_type != zipfile.ZIP_STORED:  # or it could be any number of times as large as its file
        raise ValueError(f"{_KERAS_WEIGHTS} is compressed, which Keras never does")
    return _read_h5(archive.read(member))


def _pickled(load: Callable[[bytes], Any]) -> Callable[[bytes], dict[str, Stored]]:
    """A reader of the arrays in nested dictionaries; other leaves (an epoch's number and the like) are passed over."""

    def expand(name: str, node: Any) -> Stored | Iterable[tuple[Any, Any]]:
        del name
        array = safe_pickle.stored(node)
        return array if array else node.items() if isinstance(node, dict) else ()

    return lambda data: _walk(load(data), expand)
