"""Which folders of a data set are splits and which are classes: ROOT/SPLIT/CLASS/* or ROOT/CLASS/*.

Splits are known by their names, however they are spelt; an archive's habit of a folder in a folder
of its own name is seen through. Folders that look like splits and are not called so are refused:
trained against each other they would make a model that tells nothing.
"""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from catdog_jax.errors import CatdogError
from catdog_jax.photos.dataset import SPLITS
from catdog_jax.photos.walk import subfolders

_SPLIT_NAMES = {  # in lower case, without separators and without "set" or "data" at the end
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "validate", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "holdout"), "test"),
}


class Layout(NamedTuple):
    """What the folders of a data set mean.

    Attributes:
      root: the data set's folder, from which the others are named.
      places: the folders that hold the class folders, and the split of each; None where no folder
        says.
    """

    root: Path
    places: dict[Path, str | None]

    @property
    def has_splits(self) -> bool:
        """Whether there are folders of splits."""
        return None not in self.places.values()

    def described(self) -> str:
        """Which folder is which, to be told."""
        named = [(place.relative_to(self.root).as_posix(), split) for place, split in self.places.items()]
        named.sort(key=lambda pair: SPLITS.index(pair[1]) if pair[1] else 0)
        return ", ".join(f"{split or 'class folders'} in {name!r}" for name, split in named)

    def notes(self) -> tuple[str, ...]:
        """How the folders were understood, where their names alone do not say it."""
        plain = all(place == self.root / (split or "") for place, split in self.places.items())
        return () if plain else (f"found {self.described()}",)


def read_layout(root: Path) -> Layout:
    """Finds the splits of a data set, or that it has none.

    Raises:
      CatdogError: the folders look like splits under names that are not known, or like classes that
        each hold splits.
    """
    inner = _unwrapped(root)
    named = {folder: split_named(folder.name) for folder in subfolders(inner)}
    splits = {_unwrapped(folder): split for folder, split in named.items() if split and subfolders(folder)}
    if not splits:
        _refuse_unnamed_splits(inner)
    return Layout(root, {**splits} or {inner: None})


def split_named(name: str) -> str | None:
    """The split that a folder of this name is: "Training_Set" -> "train"; None for other names."""
    word = re.sub(r"[\W_]", "", name.lower())
    return _SPLIT_NAMES.get(re.sub(r"(data)?(set)?$", "", word))


def _unwrapped(folder: Path) -> Path:
    """The folder itself, or the only one in it where that has the same name or holds splits (dataset/dataset/training_set)."""
    match subfolders(folder):
        case [only] if subfolders(only):
            inner = _unwrapped(only)
            holds_splits = any(split_named(below.name) and subfolders(below) for below in subfolders(inner))
            if folder.resolve().name.lower() == only.name.lower() or (holds_splits and not split_named(only.name)):
                return inner
    return folder


def _refuse_unnamed_splits(root: Path) -> None:
    holds = {
        folder.name: frozenset(below.name for below in subfolders(_unwrapped(folder))) for folder in subfolders(root)
    }
    for shared, count in Counter(holds.values()).items():
        spelt = all(map(split_named, shared))
        if count < 2 or len(shared) < 2 or not (len(shared) == 2 or spelt):
            continue
        outer, held = (
            " and ".join(map(repr, sorted(names))) for names in ((n for n in holds if holds[n] == shared), shared)
        )
        found = f"{root}: expected SPLIT/CLASS/* or CLASS/*, found that {outer} each hold {held}"
        if spelt:
            raise CatdogError(
                f"{found}: splits inside classes. Turn it round: train/CLASS, validation/CLASS, test/CLASS."
            )
        raise CatdogError(
            f"{found}, as splits do. Rename them to train, validation and test; or, if they are the classes, move their photos "
            f"out of the subfolders."
        )
