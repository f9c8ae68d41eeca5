"""Photos that are listed one by one, in pairs of a file and its class, as a data set."""

import functools
from collections.abc import Iterable
from pathlib import Path

from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding, folders, splitting
from catdog_jax.photos.dataset import Record, is_class_name
from catdog_jax.photos.splitting import Found


def load(pairs: Iterable[tuple[str | Path, str]]) -> Found:
    """The files as photos of two classes, whose splits are to be drawn.

    The pairs are (path, name of the class), one a photo.

    Raises:
      CatdogError: there are not two classes, or a file is listed twice.
      TypeError: these are no pairs of a path and a name.
    """
    files: dict[str, str] = {}
    for photo, name in _checked(pairs):
        path = Path(photo).as_posix()
        if path in files:
            raise CatdogError(f"{path}: expected each photo once, found it twice in the list. Leave one out.")
        files[path] = name
    classes = sorted({*files.values()})
    if len(classes) != 2 or not all(map(is_class_name, classes)):
        found = ", ".join(map(repr, classes)) or "none"
        raise CatdogError(f"photos: expected photos of two classes, found {len(classes)}: {found}. Keep two.")
    records = [
        Record(name, classes.index(label), "train", folders.size_of(path), functools.partial(decoding.read_photo, path))
        for name, label, path in ((name, label, Path(name)) for name, label in files.items())
    ]
    source = f"a list of {len(files):,} photos"
    return Found(source, source, (classes[0], classes[1]), records, "List more photos.", lacking=splitting.lacking(()))


def _checked(pairs: object) -> Iterable[tuple[str | Path, str]]:
    for pair in pairs if isinstance(pairs, Iterable) else (pairs,):
        match pair:
            case (str() | Path() as path, str() as name):
                yield path, name
            case _:
                raise TypeError(f"photos: expected a folder, or pairs (path, class), found {pair!r}. See load_photos.")
