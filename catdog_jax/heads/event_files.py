"""TensorBoard's event files, written without TensorFlow: scalars, and the settings of trials for its HPARAMS page.

A file is a sequence of records of TFRecord: the length, its checksum, a message Event, its checksum. The messages
are those of tensorboard/compat/proto/{event,summary}.proto and tensorboard/plugins/hparams/{api,plugin_data}.proto.
The package tensorboardX would write them too, but imports PyTorch and Comet wherever they are installed.
"""

import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from catdog_jax.runtime import wire

PREFIX = "events.out.tfevents."  # of the names of event files, by which TensorBoard finds them
_CASTAGNOLI = 0x82F63B78  # the polynomial of CRC-32C, its bits reversed
_STRING, _BOOL, _FLOAT = 1, 2, 3  # TensorBoard's types of settings
_SUCCESS = 1

Setting = str | bool | float | int


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_CASTAGNOLI if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _table()


def checksum(data: bytes) -> int:
    """CRC-32C, masked as TFRecord has it, so that a checksum of checksums is one.

    Example:
      >>> hex(checksum(b"123456789"))
      '0xc80a0f03'
    """
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


class EventFile:
    """One event file, in a folder that TensorBoard shows as a run. Each record is on the disk when its call returns.

    Raises:
      OSError: it cannot be written.
    """

    def __init__(self, folder: Path):
        """Makes the folder and the file."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{PREFIX}{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        self._append(wire.message(3, b"brain.Event:2"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to the curve of each tag."""
        summary = b"".join(wire.message(1, _tag(name) + wire.single(2, value)) for name, value in values.items())
        self._append(wire.number(2, step) + wire.message(5, summary))

    def experiment(self, settings: Mapping[str, Setting], metrics: Sequence[str]) -> None:
        """Says which settings trials have, by an example, and which tags judge them; for the HPARAMS page."""
        infos = [wire.message(4, _tag(name) + wire.number(4, _type(value))) for name, value in settings.items()]
        judged = [wire.message(5, wire.message(1, wire.message(2, tag.encode()))) for tag in metrics]
        self._hparams("experiment", wire.message(2, b"".join(infos + judged)))

    def begin(self, settings: Mapping[str, Setting]) -> None:
        """Says with which settings this run is a trial."""
        entries = [wire.message(1, _tag(name) + wire.message(2, _value(value))) for name, value in settings.items()]
        self._hparams("session_start_info", wire.message(3, b"".join(entries) + wire.double(5, time.time())))

    def end(self) -> None:
        """Says that the trial is over."""
        self._hparams("session_end_info", wire.message(4, wire.number(1, _SUCCESS) + wire.double(2, time.time())))

    def _hparams(self, name: str, content: bytes) -> None:
        plugin = wire.message(1, b"hparams") + wire.message(2, content)
        # TensorBoard passes over a value without a tensor: an empty one of floats
        value = (
            _tag(f"_hparams_/{name}") + wire.message(8, wire.number(1, 1)) + wire.message(9, wire.message(1, plugin))
        )
        self._append(wire.message(5, wire.message(1, value)))

    def _append(self, fields: bytes) -> None:
        event = wire.double(1, time.time()) + fields
        length = struct.pack("<Q", len(event))
        sums = (struct.pack("<I", checksum(data)) for data in (length, event))
        with open(self._path, "ab") as file:
            file.write(length + next(sums) + event + next(sums))


def _tag(name: str) -> bytes:
    return wire.message(1, name.encode())


def _type(value: Setting) -> int:
    return _BOOL if isinstance(value, bool) else _STRING if isinstance(value, str) else _FLOAT


def _value(value: Setting) -> bytes:
    """A google.protobuf.Value."""
    if isinstance(value, bool):
        return wire.number(4, int(value))
    return wire.message(3, value.encode()) if isinstance(value, str) else wire.double(2, value)
