"""Protobuf's wire format: the fields of a message, in bounded steps, with the bytes of tensors passed over; and written.

See https://protobuf.dev/programming-guides/encoding.
"""

import struct
from typing import NamedTuple

import numpy as np

MAX_STEPS = 200_000  # numbers that are read; an export has some 3,000
MAX_TEXT = 2**12  # bytes of a name


class Field(NamedTuple):
    """A field of a message: its number in onnx.proto, and the number or the bytes that it holds."""

    number: int
    value: int | memoryview


class Wire:
    """Reads messages, of `MAX_STEPS` numbers together at most. What it cannot read is a ValueError."""

    def __init__(self) -> None:
        self._steps = 0

    def fields(self, message: memoryview) -> list[Field]:
        """All fields of a message, in their order."""
        read: list[Field] = []
        place = 0
        while place < len(message):
            tag, place = self._number(message, place)
            number, kind = tag >> 3, tag & 7
            if kind == 0:
                value, place = self._number(message, place)
                read.append(Field(number, value))
            else:
                if kind == 2:
                    size, place = self._number(message, place)
                elif kind in (1, 5):
                    size = 8 if kind == 1 else 4
                else:
                    raise ValueError(f"a field of wire type {kind}")
                read.append(Field(number, message[place : place + size]))
                place += size
            if place > len(message) or not 0 < number < 2**29:
                raise ValueError("a field that is cut off or has no number")
        return read

    def messages(self, fields: list[Field], number: int) -> list[memoryview]:
        """The contents of the fields of a number: messages, bytes or texts."""
        values = [field.value for field in fields if field.number == number]
        contents = [value for value in values if isinstance(value, memoryview)]
        if len(contents) < len(values):
            raise ValueError(f"a number in field {number}")
        return contents

    def texts(self, fields: list[Field], number: int) -> list[str]:
        """The texts of the fields of a number."""
        texts = self.messages(fields, number)
        if max(map(len, texts), default=0) > MAX_TEXT:
            raise ValueError(f"a name of more than {MAX_TEXT:,} bytes")
        return [bytes(text).decode() for text in texts]

    def numbers(self, fields: list[Field], number: int) -> list[int]:
        """Signed numbers, one a field or many packed in one."""
        unsigned: list[int] = []
        for value in (field.value for field in fields if field.number == number):
            if isinstance(value, int):
                unsigned.append(value)
                continue
            place = 0
            while place < len(value):
                unpacked, place = self._number(value, place)
                unsigned.append(unpacked)
        return [value - 2**64 if value >= 2**63 else value for value in unsigned]

    def _number(self, message: memoryview, place: int) -> tuple[int, int]:
        """A number of seven bits a byte, and the place behind it."""
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise ValueError(f"more than {MAX_STEPS:,} numbers")
        value = 0
        for shift, byte in enumerate(message[place : place + 10]):
            value |= (byte & 0x7F) << 7 * shift
            if byte < 0x80:
                return value % 2**64, place + shift + 1
        raise ValueError("a number that does not end")


def message(field: int, content: bytes) -> bytes:
    """A field that holds a message, bytes or a text."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def number(field: int, value: int) -> bytes:
    """A field that holds a number of 0 or more."""
    return _varint(field << 3) + _varint(value)


def double(field: int, value: float) -> bytes:
    """A field that holds a number of double precision."""
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def single(field: int, value: float) -> bytes:
    """A field that holds a number of single precision; what is too large for one becomes infinite."""
    with np.errstate(over="ignore"):
        return _varint(field << 3 | 5) + np.float32(value).tobytes()


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that another follows."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
