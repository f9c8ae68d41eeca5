"""A folder of photos as a data set: ROOT/SPLIT/CLASS/* (see `layout`), or ROOT/CLASS/*, of which splits are drawn."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding, splitting
from catdog_jax.photos.dataset import SPLITS, Record, is_class_name
from catdog_jax.photos.layout import Layout, read_layout, split_named
from catdog_jax.photos.splitting import Found
from catdog_jax.photos.walk import Walk, subfolders, told

_BESIDE = range(2, 5)  # folders beside a class or a split; more are somebody's collection


def load(source: str, needed: Sequence[str] = SPLITS) -> Found:
    """Loads the folder that is named, see `load_folder`."""
    return load_folder(Path(source), source, needed)


def load_folder(root: Path, source: str | None = None, needed: Sequence[str] = SPLITS) -> Found:
    """Finds ROOT/SPLIT/CLASS/* (see `layout.read_layout`), or ROOT/CLASS/*. Splits without a folder are to be drawn.

    `source` is the name to remember it by.

    Raises:
      CatdogError: see `sources.load`.
    """
    source = source or str(root)
    if not root.is_dir():
        kind = "a file" if root.exists() else "nothing"
        advice = "Name a folder, or a table (.csv, .tsv, .jsonl, .parquet); unpack an archive first."
        advice = advice if root.exists() else "Check --data."
        raise CatdogError(f"{root}: expected a folder of photos, found {kind}. {advice}")
    layout, walk = read_layout(root), Walk(root)
    classes = _two_classes(layout)
    _check_places(layout, classes, needed)
    records = list(_records(layout, classes, walk))
    walk.leave_others(root, {place / name for place in layout.places for name in classes})
    left_out = tuple(walk.left_out.values())
    known = "; ".join(filter(None, (f"found {layout.described()}", told(left_out))))
    advice = f"Put some there ({', '.join(decoding.SUFFIXES)}), or check the names: {known}."
    return Found(
        source,
        str(root),
        classes,
        records,
        advice,
        lacking=splitting.lacking(tuple(layout.places.values())),
        names_splits=layout.has_splits,
        notes=layout.notes(),
        left_out=left_out,
        folder_of=functools.partial(_folder_of, layout, classes),
    )


def _folder_of(layout: Layout, classes: tuple[str, str], name: str) -> str | None:
    """The folder below that of the class that a photo is in, after the class: one of several splits is the same."""
    photo = layout.root / name
    for place in layout.places:
        parts = photo.relative_to(place).parts if photo.is_relative_to(place) else ()
        if len(parts) > 2 and parts[0] in classes:
            return f"{parts[0]}/{parts[1]}"
    return None


def _check_places(layout: Layout, classes: tuple[str, str], needed: Sequence[str]) -> None:
    """Checks that each split that is needed has a folder of each class."""
    for place, split in layout.places.items():
        for name, other in (classes, classes[::-1]):
            if split in needed and not (place / name).is_dir():
                away = f", or move {place.name} away: a tenth of train is then its {split}" if split != "train" else ""
                raise CatdogError(
                    f"{place}: expected folders of both classes, found {other!r} and no {name!r}. Put photos into "
                    f"{place / name}{away}."
                )


def _records(layout: Layout, classes: tuple[str, str], walk: Walk) -> Iterator[Record]:
    for place, split in layout.places.items():
        for label, name in enumerate(classes):
            for photo in walk.photos(place / name) if (place / name).is_dir() else ():
                yield record_of(layout.root, photo.relative_to(layout.root).as_posix(), label, split or "train")


def record_of(root: Path, name: str, label: int, split: str, group: str | None = None) -> Record:
    """A photo whose id is its path below `root`."""
    return Record(name, label, split, size_of(root / name), functools.partial(read_below, root, name), group)


def size_of(photo: Path) -> int:
    """The length of a file in bytes; 0 where there is none."""
    return photo.stat().st_size if photo.exists() else 0


def read_below(root: Path, name: str) -> bytes:
    """A path of its own for each of many photos would take more memory than all the rest of their records."""
    return decoding.read_photo(root / name)


def _two_classes(layout: Layout) -> tuple[str, str]:
    """The names of the class folders; of more than two, those that hold pictures."""
    folders = [folder for place in layout.places for folder in subfolders(place)]
    names = {folder.name for folder in folders}
    if len(names) > 2:
        names = {folder.name for folder in folders if _holds_pictures(folder)}
    for name in names:
        if not is_class_name(name):
            raise CatdogError(
                f"{layout.root}: expected class folders named in UTF-8 without control characters, found {name!r}. "
                f"Rename it, for example with `convmv -f cp437 -t utf8`."
            )
    if len(names) != 2:
        listed = ", ".join(sorted(names)) or "none"
        loose = len(Walk().photos(layout.root)) if not folders else 0
        listed += f", and {loose:,} photos right here" if loose else ""
        raise CatdogError(
            f"{layout.root}: expected folders of two classes, found {len(names)}: {listed}. "
            f"{_advice(layout.root, folders, len(names), loose)}"
        )
    first, second = sorted(names)
    if not layout.has_splits and split_named(first) and split_named(second):
        raise CatdogError(
            f"{layout.root}: expected folders of two classes, found the splits {first} and {second} without class "
            f"folders. Put the photos of each class into a folder of its own in them: {second}/CLASS."
        )
    return first, second


def _holds_pictures(folder: Path) -> bool:
    walk = Walk()
    return bool(walk.photos(folder)) or any(kind.pictures for kind in walk.left_out.values())


def _advice(root: Path, folders: Sequence[Path], classes: int, loose: int) -> str:
    """What to do where there are not two class folders."""
    match folders:
        case []:
            above = root.resolve().parent
            above = above.parent if split_named(above.name) else above
            if loose and len(subfolders(above)) in _BESIDE:
                return f"Name the folder above: --data {above}."
            return "Put the photos of each class into a folder of its own, and name the folder above the two."
        case [only] if len(subfolders(only)) > 1:
            return f"Perhaps --data {only} is meant."
    if classes < 2:
        return "Put photos of another class into a folder beside it."
    return (
        "catdog tells two apart: keep two. To train one against the rest, move the others into one folder, or give them one "
        "label in a table (--data photos.csv). For all of them at once, use Keras or fastai."
    )
