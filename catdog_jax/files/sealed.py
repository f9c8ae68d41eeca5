"""JSON and other files that tell by their own bytes whether they are as they were written."""

import json
import operator
import re
from typing import Any

from catdog_jax.errors import CatdogError
from catdog_jax.files.atomic import sha256, write_bytes
from catdog_jax.files.buckets import Location

SEAL = "catdog-seal:"
UNSEALED = SEAL + "0" * 64  # put it where a file keeps texts about itself; `seal` fills it in
_MARK = SEAL.encode()
_LEFT_OF_A_SEAL = re.compile(rb"catdog-.{5}[0-9a-f]{9}|seal:[0-9a-f]{9}", re.DOTALL)  # after a bit of it was flipped


class UnsealedError(CatdogError):
    """A file bears no seal: an older version wrote it, or another program, or the seal was taken out."""


def write_json(path: Location, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. NaN and infinity are refused: they are not JSON.

    Raises:
      ValueError: `value` contains NaN or an infinity.
    """
    write_bytes(path, _encoded(value))


def _encoded(value: Any) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def read_json(path: Location, what: str) -> dict[str, Any]:
    """Reads a JSON object. `what` names the kind of file in the errors, for example "feature manifest".

    Raises:
      CatdogError: the file is missing, is not JSON, or is not an object.
    """
    return _read_json(path, what)[1]


def _read_json(path: Location, what: str) -> tuple[bytes, dict[str, Any]]:
    try:
        data = path.read_bytes()
        value = json.loads(data, parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise CatdogError(
            f"{path}: expected a {what}, found no file. Check the path, or run the stage before."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CatdogError(
            f"{path}: expected a {what} in JSON, found: {error}. Run the stage that writes it again."
        ) from None
    if not isinstance(value, dict):
        raise CatdogError(
            f"{path}: expected a {what} (a JSON object), found a {type(value).__name__}. Run its stage again."
        )
    return data, value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name}, which is not JSON")


def write_sealed_json(path: Location, value: dict[str, Any]) -> None:
    """Writes a JSON object with the SHA-256 of itself as its last field, atomically; `read_sealed_json` checks it."""
    write_json(path, _sealed(value))


def read_sealed_json(path: Location, what: str, older: bool = False) -> dict[str, Any]:
    """Reads what `write_sealed_json` wrote, without the seal.

    `what` names the kind of file in the errors. With `older` a file without a seal is taken
    too: versions before sealed fewer kinds.

    Raises:
      UnsealedError: there is no seal, and one is asked for.
      CatdogError: as `read_json`, or a byte of the file has changed.
    """
    data, value = _read_json(path, what)
    if not _bears_seal(value):
        if older:
            return value
        raise UnsealedError(
            f"{path}: expected a {what} with the sha256 of its contents, found none: it is altered, or older."
        )
    value.pop("sha256", None)
    if data != _encoded(_sealed(value)):
        raise CatdogError(f"{path}: expected a {what} with the sha256 of its contents, found another: it is altered.")
    return value


def is_sealed(path: Location) -> bool:
    """Whether a JSON file bears a seal, be it the right one or not."""
    return _bears_seal(_read_json(path, "JSON file")[1])


def _bears_seal(value: dict[str, Any]) -> bool:
    last = next(reversed(value), "")  # where a bit of its name was flipped, a seal is spoiled, not missing
    return "sha256" in value or (len(last) == 6 and sum(map(operator.ne, last, "sha256")) == 1)


def _sealed(value: dict[str, Any]) -> dict[str, Any]:
    return value | {"sha256": sha256_of_json(value)}


def seal(data: bytes) -> bytes:
    """A file's content in which `UNSEALED` occurs once, with the SHA-256 of it all in the place of the zeros."""
    return data.replace(UNSEALED.encode(), _MARK + sha256(data).encode())


def check_seal(path: Location) -> int:
    """Checks a file that `seal` has sealed, and returns its length in bytes.

    Raises:
      UnsealedError: it has no seal, nor what is left of one.
      CatdogError: it cannot be read, or a bit of it has changed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CatdogError(f"{path}: expected a file, found: {error.strerror or error}. Check the path.") from None
    before, mark, rest = data.partition(_MARK)
    recorded, after = rest[:64], rest[64:]
    if not mark or _MARK in after:
        kind = CatdogError if mark or _LEFT_OF_A_SEAL.search(data) else UnsealedError
        found = "more" if mark else "none"
        raise kind(f"{path}: expected one seal, found {found}: it is altered, or of an older version.")
    if recorded != sha256(before + UNSEALED.encode() + after).encode():
        raise CatdogError(
            f"{path}: expected {len(data):,} bytes with the sha256 of its seal, found others: it is altered."
        )
    return len(data)


def sha256_of_json(value: Any) -> str:
    """The SHA-256 of `value` in canonical JSON (sorted keys, no spaces)."""
    return sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
