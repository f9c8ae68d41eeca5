"""Photos that are listed one by one, in pairs of a file and its class, as a data set."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding, folders, splitting
from catdog_jax.photos.dataset import SPLITS, Dataset, Record, collect, is_class_name


def load(pairs: Iterable[tuple[str | Path, str]], needed: Sequence[str] = SPLITS) -> Dataset:
    """The files as a data set. Their splits are drawn, see `splitting`.

    The pairs are (path, name of the class), one a photo.

    Raises:
      CatdogError: there are not two classes, a file is listed twice, or there are too few photos.
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
    source, splits = f"a list of {len(files):,} photos", splitting.lacking(())
    records = splitting.draw(records, splits, classes, source, needed)
    dataset = collect(source, source, (classes[0], classes[1]), records, "List more photos.", needed)
    return dataclasses.replace(dataset, drawn=splits)


def _checked(pairs: object) -> Iterable[tuple[str | Path, str]]:
    for pair in pairs if isinstance(pairs, Iterable) else (pairs,):
        match pair:
            case (str() | Path() as path, str() as name):
                yield path, name
            case _:
                raise TypeError(f"photos: expected a folder, or pairs (path, class), found {pair!r}. See load_photos.")
