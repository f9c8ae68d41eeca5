"""Where photos come from: the table of sources, and what can be asked of any of them.

The positive class is the second in sorted order (cats, dogs -> dogs). Records are ordered by a hash
of their id, so that every shard of features mixes the classes and the order depends on nothing but
the inputs.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from catdog_jax.console import say
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.photos import decoding, exclude_list, folders, listed, splitting, tables, tfds
from catdog_jax.photos.dataset import SPLITS, Dataset, Record
from catdog_jax.photos.demo import drawing
from catdog_jax.photos.splitting import Found
from catdog_jax.photos.walk import told

__all__ = ["SPLITS", "Dataset", "Record", "load", "load_photos", "locate", "read_patiently", "tell"]

# What a source is called, as a pattern, and what loads it; the first that matches is taken
_SOURCES: tuple[tuple[str, Callable[[str, Sequence[str]], Found]], ...] = (
    ("demo", drawing.load),
    (f"{tfds.PREFIX}.*", tfds.load),
    (rf"(?i).*({'|'.join(map(re.escape, tables.READERS))})", tables.load),
    (".*", folders.load),
)
_BEFORE_RETRY = 0.5  # seconds


def load_photos(
    source: str | Path | Iterable[tuple[str | Path, str]],
    *,
    data_dir: str | Path | None = None,
    exclude: str | Path | None = None,
    needed: Sequence[str] = SPLITS,
    groups: str | None = None,
    undivided: bool = False,
) -> Dataset:
    """Looks up the photos of a data set. Those of splits that are to be drawn are read; the others are not.

    Example:
      >>> import catdog_jax as cd
      >>> photos = cd.load_photos("demo")
      >>> photos
      Dataset demo: cats and dogs
        train         160 photos (80 + 80)
        validation     60 photos (30 + 30)
        test           60 photos (30 + 30)

    Args:
      source: a folder, PATH/{train,validation,test}/CLASS/* or PATH/CLASS/*; a table, "photos.csv" (see
        `tables`); "demo", the embedded drawings; "tfds:NAME", a TensorFlow Datasets one; or pairs
        of a file and its class, of which splits are drawn.
      data_dir: where tfds: data sets are.
      exclude: a file that lists photos to leave out, as `catdog audit --write-exclude` writes it.
      needed: the splits in which each class must have photos.
      groups: what belongs together and must not lie in two splits or folds: "folder", photos of one
        folder below that of the class; or a regular expression that is searched in a photo's id,
        whose first group (or whole match) is the name.
      undivided: draw no splits: all photos of a source that names none are in train, and only train
        is needed; a split that is named stays. For cross-validation.

    Raises:
      CatdogError: the data set is missing or empty, or does not hold two classes, each in every
        split that is needed; a group holds a whole class that is to be divided; or `exclude` cannot
        be used.
      TypeError: `source` is none of these.
      UsageError: the extra `tfds` is needed and not installed, or `data_dir` goes with no such set;
        `groups` is no pattern, or fits no photo.
    """
    if isinstance(source, str | Path):
        located = locate(str(source), None if data_dir is None else Path(data_dir))
        dataset = load(located, needed, groups=groups, undivided=undivided)
    else:
        dataset = splitting.divide(listed.load(source), _needed(needed, undivided), groups, undivided)
    return exclude_list.without(dataset, None if exclude is None else Path(exclude))


def read_patiently(record: Record) -> bytes:
    """Reads the undecoded photo, twice where the disk fails: a photo that may come back must not count as undecodable.

    Raises:
      ImageError: there is no photo to be had.
      CatdogError: the system cannot read it, twice.
    """
    with contextlib.suppress(decoding.UnreadableError):
        return record.read()
    time.sleep(_BEFORE_RETRY)
    try:
        return record.read()
    except decoding.UnreadableError as error:
        raise CatdogError(
            f"{record.id!r}: {error}, twice. Repair the disk or correct the permissions, or remove the photo; then go on."
        ) from None


def locate(source: str | None, data_dir: Path | None) -> str:
    """Joins the name of a data set and the folder where TFDS keeps it, as `load` takes them.

    Raises:
      UsageError: no data set is named, or `data_dir` is given and `source` is no TFDS data set.
    """
    if source is None:
        raise UsageError(
            "--data: expected photos, found none named. Give --data FOLDER, or --data demo for the drawings."
        )
    if data_dir is None:
        return source
    if not source.startswith(tfds.PREFIX):
        raise UsageError(
            f"--data-dir: expected --data tfds:NAME beside it, found --data {source}. Leave --data-dir out."
        )
    return tfds.locate(source, data_dir)


def load(source: str, needed: Sequence[str] = SPLITS, *, groups: str | None = None, undivided: bool = False) -> Dataset:
    """Loads a data set by its name: `demo`, `tfds:NAME` (see `tfds`), or the path of a table or a folder.

    The options are as of `load_photos`.

    Raises:
      CatdogError: the data set is missing or empty, or does not hold two classes, each in every
        split that is needed.
      UsageError: the extra `tfds` is needed and not installed.
    """
    needed = _needed(needed, undivided)
    return splitting.divide(find(source, needed), needed, groups, undivided)


def find(source: str, needed: Sequence[str] = SPLITS) -> Found:
    """What a source holds, of which `splitting.divide` makes a data set: for who decides on its splits by what it holds.

    Raises as `load`.
    """
    loaders = (loader for pattern, loader in _SOURCES if re.fullmatch(pattern, source, re.DOTALL))
    return next(loaders)(source, needed)


def _needed(needed: Sequence[str], undivided: bool) -> Sequence[str]:
    """The splits in which each class must have photos: of those, train alone where none is drawn."""
    return tuple(split for split in needed if split == "train" or not undivided)


def tell(dataset: Dataset) -> None:
    """Prints how the folders of a data set were understood, and what of them is left out."""
    for line in filter(None, (*dataset.notes, told(dataset.left_out))):
        say(line)
