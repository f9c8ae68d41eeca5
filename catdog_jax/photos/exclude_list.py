"""The exclude file: the photos of a data set to leave out, one a line, for people to read and to edit.

    # copy: the same picture as 'test/cats/cat.9.jpg'
    train/cats/cat.1.jpg

Empty lines and lines that begin with # are comments. An id that such a line could not hold is in
double quotes, as JSON. The file is UTF-8; what editors and shells of Windows make of it (a
byte-order mark, UTF-16, CRLF) is read too.
"""

import codecs
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic
from catdog_jax.photos.dataset import Dataset

_MARKED = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def line(name: str) -> str:
    """An id as a line of the file."""
    plain = name.isprintable() and name == name.strip() and not name.startswith(("#", '"'))
    return name if plain else json.dumps(name)


def write(path: Path, lines: Iterable[str]) -> None:
    """Writes the file, of ids by `line` and of comments; control characters of comments are escaped.

    Raises:
      CatdogError: it cannot be written.
    """
    shown = ("".join(c if c.isprintable() else repr(c)[1:-1] for c in text) for text in lines)
    atomic.write_bytes(path, "".join(f"{text}\n" for text in shown).encode())


def text(content: bytes) -> str:
    """What a file of UTF-8 or UTF-16 says, without a byte-order mark.

    Raises:
      UnicodeDecodeError: these are other bytes.
    """
    return content.decode(next((name for mark, name in _MARKED.items() if content.startswith(mark)), "utf-8"))


def read(path: Path) -> set[str]:
    """The ids that a file lists.

    Raises:
      CatdogError: it cannot be read, or a line in quotes is no JSON string; the message names the
        line.
    """
    try:
        content = path.read_bytes()
        written = text(content)
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror if isinstance(error, OSError) else "other bytes than UTF-8 or UTF-16"
        raise CatdogError(
            f"{path}: expected a list of photos to exclude, found: {found}. Write one with `catdog audit --write-exclude`."
        ) from None
    names = set()
    for number, name in enumerate(map(str.strip, written.split("\n")), 1):
        if name.startswith('"'):
            try:
                name = str(json.loads(name))
            except ValueError:
                raise CatdogError(
                    f"{path}, line {number}: expected an id in JSON's quotes, found {name!r}. Correct it."
                ) from None
        elif name.startswith("#"):
            continue
        names |= {name} - {""}
    return names


def without(dataset: Dataset, path: Path | None) -> Dataset:
    """A data set without the photos that a file lists; the data set itself where there is no file.

    The fingerprint of a feature cache holds every id, and so what was left out.

    Raises:
      CatdogError: see `read`; or the file lists a photo that is not in the data set, so that it is
        of another one; or a class would be gone from a split.
    """
    if path is None:
        return dataset
    names = read(path)
    unknown = sorted(names - {record.id for record in dataset.records})
    if unknown:
        raise CatdogError(
            f"{path}: expected photos of {dataset.source}, found {len(unknown):,} that are not in it, for example "
            f"{unknown[0]!r}. Write the list again with `catdog audit --write-exclude`."
        )
    kept = tuple(record for record in dataset.records if record.id not in names)
    for split, label in {(record.split, record.label): None for record in dataset.records}:
        if not any((record.split, record.label) == (split, label) for record in kept):
            raise CatdogError(
                f"{path}: expected to leave photos of {dataset.classes[label]!r} in the {split} split, found that it lists "
                f"them all. Shorten the list."
            )
    return dataclasses.replace(dataset, records=kept)
