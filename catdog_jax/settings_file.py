"""The settings of a stage as a file: what `--config FILE` reads, and what a run directory records.

    {"epochs": 20, "l2": 0.01}        # settings.json; or, in settings.toml: epochs = 20

Names are those of the options, with dashes or underscores. Of a file that a stage wrote, which has
its settings under "settings", these are read; paths in it are relative to its folder.
"""

import dataclasses
import difflib
import json
import math
import tomllib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from tyro.constructors import PrimitiveConstructorSpec

from catdog_jax.errors import UsageError
from catdog_jax.files import atomic
from catdog_jax.files.buckets import Bucket, found_from, seen_from
from catdog_jax.ranges import check_arguments

_MAX_BYTES = 2**20
_PLACES, _WORDS = ("data", "weights", "source"), ("auto", "demo")  # texts that may be paths, and are none
_PLAIN: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}


class _WrongError(Exception):
    """A value does not fit its setting: what was expected."""


def read(path: Path, stage: str, settings: type) -> dict[str, Any]:
    """The settings that a file holds, as the dataclass `settings` of a stage takes them.

    Raises:
      UsageError: there is no such file; it is not JSON or TOML; or a name or a value in it is none
        of the stage's. The message names the file and the setting.
    """
    written = _parsed(path)
    recorded = isinstance(written.get("settings"), dict)
    if not recorded and "head_sha256" in written:
        raise UsageError(
            f"{path}: expected settings, found a run of an older version, which did not record them all. Give the options, or "
            "train again."
        )
    hints = get_type_hints(settings, include_extras=True)
    names = [field.name for field in dataclasses.fields(settings)]
    values: dict[str, Any] = {}
    for key, value in (written["settings"] if recorded else written).items():
        name = key.replace("-", "_")
        if name not in names:
            _refuse_name(path, stage, key, names)
        if name in values:
            raise UsageError(f"{path}, {key}: expected each setting once, found it twice. Remove one of them.")
        try:
            values[name] = _value(hints[name], value)
            check_arguments(settings, **{name: values[name]})
        except _WrongError as wrong:
            raise UsageError(
                f"{path}, {key}: expected {wrong}, found {json.dumps(value, default=str)}. Correct it."
            ) from None
        except UsageError as error:
            raise UsageError(f"{path}, {key}: {str(error).partition(': ')[2]}") from None
        if recorded:
            values[name] = _found(path.parent, name, values[name])
    return values


def recorded(settings: Any, directory: Path) -> dict[str, Any]:
    """The settings of a stage that are given, for a file in `directory` that `read` understands."""
    values = ((field.name, getattr(settings, field.name)) for field in dataclasses.fields(settings))
    return {name: _seen(directory, name, value) for name, value in values if value is not None}


def _parsed(path: Path) -> dict[str, Any]:
    readers: dict[str, Callable[[str], Any]] = {
        ".json": lambda text: json.loads(text, parse_constant=_refuse_constant),
        ".toml": tomllib.loads,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"--config: expected a .json or .toml file, found {path}. Rename it, or check the path.")
    try:
        content = atomic.read_regular(path, _MAX_BYTES)
        value = None if content is None else reader(content.decode("utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"--config: expected a file of settings, found nothing at {path}. Check the path.") from None
    except (OSError, ValueError, RecursionError) as error:
        found = error.strerror if isinstance(error, OSError) else error
        kind = path.suffix[1:].upper()
        raise UsageError(f"{path}: expected settings in {kind}, found: {found}. Correct it.") from None
    if not isinstance(value, dict):
        found = f"more than {_MAX_BYTES:,} bytes" if value is None else f"a {type(value).__name__}"
        raise UsageError(f'{path}: expected settings by name, found {found}. Write {{"epochs": 20}}, for example.')
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is not JSON")


def _refuse_name(path: Path, stage: str, key: str, names: list[str]) -> NoReturn:
    near = difflib.get_close_matches(key.replace("-", "_"), names, 1)
    advice = f"Perhaps {near[0]} is meant." if near else f"`catdog {stage} --help` lists them."
    raise UsageError(f"{path}, {key}: expected a setting of catdog {stage}, found none of this name. {advice}")


def _value(hint: Any, value: Any) -> Any:
    """A value as its type wants it."""
    notes = getattr(hint, "__metadata__", ())
    if special := next((note for note in notes if isinstance(note, PrimitiveConstructorSpec)), None):
        return _special(special, value)
    if notes:
        return _value(hint.__origin__, value)
    kind, inside = get_origin(hint), get_args(hint)
    if kind in (Union, types.UnionType):
        (some,) = (one for one in inside if one is not type(None))
        return None if value is None else _value(some, value)
    if kind is Literal:
        if value not in inside:
            raise _WrongError(_either(inside))
        return value
    if kind is tuple:
        return _several(inside, value)
    return _plain(hint, value)


def _special(special: PrimitiveConstructorSpec[Any], value: Any) -> Any:
    """A value that the command line writes in one word: a place, or views."""
    word = ",".join(map(str, value)) if isinstance(value, list) else value
    if special.choices and word not in special.choices:
        raise _WrongError(_either(special.choices))
    if not isinstance(word, str) or not word:
        raise _WrongError("a path")
    return special.instance_from_str([word])


def _several(inside: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    any_number = inside[-1] is Ellipsis
    if not isinstance(value, list) or not (any_number or len(value) == len(inside)):
        raise _WrongError("a list" if any_number else f"a list of {len(inside)}")
    return tuple(_value(inside[0], one) for one in value)


def _plain(kind: type, value: Any) -> Any:
    wanted = {float: (int, float), Path: (str,)}.get(kind, (kind,))
    fits = isinstance(value, wanted) and (kind is bool or not isinstance(value, bool))
    if not fits or (kind is Path and not value) or (kind is float and math.isnan(value)):
        raise _WrongError(_PLAIN[kind])
    return kind(value)


def _either(choices: tuple[Any, ...]) -> str:
    return " or ".join(filter(None, (", ".join(map(str, choices[:-1])), str(choices[-1]))))


def _seen(directory: Path, name: str, value: Any) -> Any:
    """A setting as JSON has it; what lies on a disk as it is seen from a folder."""
    match value:
        case tuple():
            return [_seen(directory, name, one) for one in value]
        case Bucket() | Path():
            return seen_from(directory, value)
        case str() if name in _PLACES and value not in _WORDS and Path(value).exists():
            return seen_from(directory, Path(value))
    return value


def _found(directory: Path, name: str, value: Any) -> Any:
    """What `_seen` wrote."""
    match value:
        case tuple():
            return tuple(_found(directory, name, one) for one in value)
        case Bucket() | Path():
            return found_from(directory, str(value))
        case str() if name in _PLACES and value not in _WORDS and (directory / value).exists():
            return str(found_from(directory, value))
    return value
