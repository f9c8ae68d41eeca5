"""TensorFlow Datasets as a source: tfds:NAME[:TRAIN/VALIDATION/TEST][@DIRECTORY] -> records, without TensorFlow.

NAME may carry a configuration and a version (NAME/CONFIG:1.0.0), and the three splits are written
as TFDS writes them, for example train[:80%]/train[80%:90%]/train[90%:]. By default they are the
splits train, validation and test where there are such; without a validation split it is the last
tenth of train, and without both the last two tenths of train are validation and test.

The data set's own decoder is skipped: the undecoded bytes go through `decoding.decode`, like
everybody's. It must be prepared as array_record or parquet files; `cats_vs_dogs` is prepared where
it is missing. tensorflow_datasets is imported only here and in `cats_vs_dogs`, and only when such a
source is named.
"""

import functools
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from catdog_jax.console import quieted
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.photos import cats_vs_dogs, decoding
from catdog_jax.photos.dataset import SPLITS, Record, is_class_name
from catdog_jax.photos.splitting import Found, lacking

PREFIX = "tfds:"
_SOURCE = re.compile(
    r"tfds:(?P<name>\w+(?:/[\w.+-]+)?(?::\d+\.\d+\.\d+)?)(?::(?P<splits>[^@]+))?(?:@(?P<directory>.+))?", re.ASCII
)
_FILENAMES = ("image/filename", "filename", "file_name", "image_filename")  # features that name a photo


class _Keys(NamedTuple):
    """Which features hold what."""

    image: str
    label: str
    filename: str | None


def locate(source: str, directory: Path) -> str:
    """The source with the directory that holds it, in place of any that it names."""
    return f"{source.split('@')[0]}@{directory}"


def load(source: str, needed: Sequence[str] = SPLITS) -> Found:
    """Finds the photos of a TFDS data set, and prepares `cats_vs_dogs` first where it is missing.

    Raises:
      UsageError: the extra `tfds` is not installed, or the source is not written as above.
      CatdogError: the name is unknown, the data set is not prepared, has no image or not two
        classes, or a split is unknown or shares photos with another.
    """
    parsed = _SOURCE.fullmatch(source)
    if parsed is None:
        raise UsageError(f"--data {source}: expected tfds:NAME or tfds:NAME:TRAIN/VALIDATION/TEST. Check the name.")
    where = source.split("@")[0]
    try:
        import tensorflow_datasets as tfds
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--data {where}: expected the package {error.name}, found that it is not installed. "
            "Run: pip install 'catdog-jax[tfds]'."
        ) from None
    directory = Path(parsed["directory"]) if parsed["directory"] else None
    with quieted("absl"):  # it remarks that a folder is not prepared yet, for instance
        builder = _prepared(tfds, where, parsed["name"], directory)
        keys, classes, names = _describe(tfds, builder.info.features, builder.info.supervised_keys, where)
        parts = _parts(tfds, builder.info.splits, where, parsed["splits"])
        undecoded = {
            key: tfds.decode.SkipDecoding()
            for key, feature in builder.info.features.items()
            if isinstance(feature, tfds.features.Image)
        }
        try:
            stored = {
                name: builder.as_data_source(name, decoders=undecoded) for name in {part.stored for part in parts}
            }
        except NotImplementedError:
            raise CatdogError(
                f"{where}: expected array_record or parquet files in {builder.data_path}, found "
                f"{builder.info.file_format.value}. Name another --data-dir, or prepare it again as array_record."
            ) from None
        records = _records(stored, keys, names, classes, parts, where)
        cut = () if parsed["splits"] else lacking(tuple(builder.info.splits))
    return Found(
        source,
        where,
        classes,
        records,
        "Name splits that have some: tfds:NAME:TRAIN/VALIDATION/TEST.",
        cut=cut,
        names_splits=True,
    )


def _prepared(tfds: Any, where: str, name: str, directory: Path | None) -> Any:
    """The builder of a data set that is prepared, in random-access files where there are several formats."""
    if directory is not None and not directory.is_dir():
        kind = "a file" if directory.exists() else "nothing"
        raise CatdogError(
            f"{directory}: expected a folder of TFDS data sets, found {kind}. Check --data-dir, or make it."
        )
    try:
        builder = tfds.builder(name, data_dir=directory)
    except tfds.core.DatasetNotFoundError:
        raise CatdogError(
            f"{where}: expected the name of a TFDS data set, found none of that name in the catalogue or in --data-dir. "
            "Names are at https://www.tensorflow.org/datasets/catalog."
        ) from None
    except (ValueError, AssertionError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CatdogError(
            f"{where}: expected a data set that TFDS can open, found: {reason}. Check the name."
        ) from None
    if not builder.data_path.exists():
        if name != cats_vs_dogs.NAME:
            raise CatdogError(
                f"{where}: expected a prepared data set in {builder.data_path}, found nothing. Prepare it with TFDS "
                f"(tfds build {name} --file_format=array_record), or check --data-dir."
            )
        cats_vs_dogs.prepare(tfds, builder)
        builder = tfds.builder(name, data_dir=directory)
    return builder


def _describe(tfds: Any, features: Any, supervised: Any, where: str) -> tuple[_Keys, tuple[str, str], Sequence[str]]:
    """The features that matter, the classes in sorted order, and the labels' names in the data set's order."""
    preferred = supervised if isinstance(supervised, tuple) else ()
    ordered = [*(key for key in preferred if key in features), *features]
    images_of = [key for key in ordered if isinstance(features[key], tfds.features.Image)]
    labels = [key for key in ordered if isinstance(features[key], tfds.features.ClassLabel)]
    if not images_of or not labels:
        found = ", ".join(features) or "nothing"
        raise CatdogError(
            f"{where}: expected an image and a label among its features, found {found}. Choose another data set."
        )
    names = features[labels[0]].names
    if len(names) != 2:
        some = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        raise CatdogError(
            f"{where}: expected a label of two classes, found {len(names)}: {some}. Choose another data set."
        )
    if odd := [name for name in names if not is_class_name(name)]:
        raise CatdogError(
            f"{where}: expected classes named in UTF-8 without control characters, found {odd[0]!r}. Choose another data set."
        )
    texts = (key for key in _FILENAMES if key in features and isinstance(features[key], tfds.features.Text))
    first, second = sorted(names)
    return _Keys(images_of[0], labels[0], next(texts, None)), (first, second), names


class _Part(NamedTuple):
    """Photos `start` to `stop` of the data set's split `stored` are of our split `split`."""

    split: str
    stored: str
    start: int
    stop: int


def _parts(tfds: Any, splits: Any, where: str, written: str | None) -> list[_Part]:
    """What our three splits consist of.

    Raises:
      CatdogError: a split is unknown, or two share photos.
      UsageError: there are not three.
    """
    names = written.split("/") if written else _default_splits(splits, where)
    if len(names) != len(SPLITS):
        raise UsageError(f"--data {where}: expected three splits TRAIN/VALIDATION/TEST, found {len(names)}: {written}.")
    parts = []
    for split, name in zip(SPLITS, names, strict=True):
        try:
            for piece in tfds.core.ReadInstruction.from_spec(name).to_absolute(splits):
                whole = splits[piece.splitname].num_examples
                parts.append(_Part(split, piece.splitname, piece.from_ or 0, whole if piece.to is None else piece.to))
        except (ValueError, KeyError, AssertionError, NotImplementedError):
            raise CatdogError(
                f"{where}: expected a part of {', '.join(splits) or 'no split'}, found {name!r}. "
                "Write it like train, train[:80%] or train[1000:2000]."
            ) from None
    placed = sorted(parts, key=lambda part: (part.stored, part.start))
    for first, second in itertools.pairwise(placed):
        if first.stored == second.stored and second.start < first.stop:
            raise CatdogError(
                f"{where}: expected splits without a photo in common, found that {first.split} and {second.split} share "
                f"{first.stored}[{second.start}:{min(first.stop, second.stop)}]. Name others."
            )
    return parts


def _default_splits(splits: Any, where: str) -> list[str]:
    if "train" not in splits:
        raise CatdogError(
            f"{where}: expected a split named train, found {', '.join(splits) or 'none'}. "
            f"Name three: {where}:TRAIN/VALIDATION/TEST."
        )
    if "validation" in splits and "test" in splits:
        return list(SPLITS)
    if "test" in splits:
        return ["train[:90%]", "train[90%:]", "test"]
    if "validation" in splits:
        return ["train[:90%]", "validation", "train[90%:]"]
    return ["train[:80%]", "train[80%:90%]", "train[90%:]"]


def _records(
    stored: dict[str, Any], keys: _Keys, names: Sequence[str], classes: tuple[str, str], parts: list[_Part], where: str
) -> list[Record]:
    """Reads every example once, for its label, name and size. The id is the file's name where those are unique."""
    rows = []
    for part in parts:
        for index in range(part.start, part.stop):
            try:
                example = stored[part.stored][index]
            except (RuntimeError, ValueError, IndexError, OSError) as error:
                raise CatdogError(
                    f"{where}: expected photo {index} of its split {part.stored}, found: {error}. Prepare the data set again."
                ) from None
            value = int(example[keys.label])
            if value not in (0, 1):
                raise CatdogError(
                    f"{where}: expected labels 0 and 1, found {value} in {part.stored}. Name splits with labels."
                )
            filename = example[keys.filename] if keys.filename else b""
            name = filename.decode("utf-8", "replace") if isinstance(filename, bytes) else str(filename)
            read = functools.partial(_read, stored[part.stored], keys.image, index)
            label = classes.index(names[value])
            rows.append((name, index, part, label, len(example[keys.image]), read))
    unique = all(row[0] for row in rows) and len({row[0] for row in rows}) == len(rows)
    return [
        Record(name if unique else f"{part.stored}-{index:06d}", label, part.split, size, read)
        for name, index, part, label, size, read in rows
    ]


def _read(stored: Any, key: str, index: int) -> bytes:
    try:
        return bytes(stored[index][key])
    except (RuntimeError, ValueError, OSError) as error:
        raise decoding.UnreadableError(f"cannot be read: {error}") from None
