"""Prepares TFDS' `cats_vs_dogs` 4.0.1 from Microsoft's zip, where and as TFDS keeps it, without TensorFlow.

The official builder needs TensorFlow to encode each JPEG again, and drops a file whose first bytes
do not spell JFIF. Here each file that decodes is kept. A JPEG in RGB keeps its bytes; another
picture (grey, CMYK, GIF, PNG) becomes a JPEG in RGB; what does not decode is left out and listed in
metadata.json. Keys, and so the order of the photos, are the official ones.
"""

import errno
import io
import itertools
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from catdog_jax import config
from catdog_jax.console import progress_bar, say
from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic, downloads
from catdog_jax.photos import decoding

NAME = "cats_vs_dogs"
ARCHIVE = downloads.Download(
    "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip",
    824_887_076,
    # As TFDS has it, url_checksums/cats_vs_dogs.txt
    "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
    "CATDOG_DATA_URL",
)
_MEMBER = re.compile(r"PetImages/(Cat|Dog)/\d+\.jpg")
_SHARD_BYTES = 2**27
_CHUNK = 128  # photos that are in memory at once
_QUALITY = 95  # of a picture that is encoded again
_DESCRIPTION = (
    "A large set of images of cats and dogs. Prepared by catdog_jax without TensorFlow: every file that decodes is here, a "
    "JPEG in RGB with its original bytes; metadata.json lists what was encoded again and what was left out."
)


def prepare(tfds: Any, builder: Any) -> None:
    """Downloads and prepares the data set where `builder` looks for it. The folder takes its name once it is whole.

    `tfds` is the module tensorflow_datasets, `builder` its builder of `cats_vs_dogs`, for
    array_record files.

    Raises:
      CatdogError: no space, no or another zip, no photos in it, or the files cannot be written.
    """
    target, root = Path(builder.data_path), Path(builder.data_path).parents[1]
    try:
        root.mkdir(parents=True, exist_ok=True)
        archive = _download(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent) as temporary:
            folder = Path(temporary, target.name)
            folder.mkdir(mode=0o775)
            _write(tfds, builder, archive, folder)
            _check_and_sync(tfds, folder)
            os.rename(folder, target)
        atomic.sync_directory(target.parent)
    except zipfile.BadZipFile as error:
        raise CatdogError(
            f"{archive}: expected Microsoft's zip of photos, found: {error}. Delete it, and run again."
        ) from None
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY) and target.exists():
            return  # another process was quicker
        reason = error.strerror or error
        raise CatdogError(f"{target}: cannot be written: {reason}. Free space or choose another --data-dir.") from error


def _download(root: Path) -> Path:
    folder = root / "downloads"
    archive, part = folder / ARCHIVE.name, folder / f"{ARCHIVE.name}.part"
    have = ARCHIVE.size if archive.exists() else min(part.stat().st_size, ARCHIVE.size) if part.exists() else 0
    needed, free = 2 * ARCHIVE.size - have, shutil.disk_usage(root).free
    if free < needed:
        raise CatdogError(
            f"{root}: expected {needed / downloads.MB:,.0f} MB of free space for {NAME}, found {free / downloads.MB:,.0f} MB. "
            "Free space or choose another --data-dir."
        )
    say(
        f"{NAME} is not prepared in {root}: downloading the photos, {(ARCHIVE.size - have) / downloads.MB:,.0f} MB, "
        f"and preparing them (another {ARCHIVE.size / downloads.MB:,.0f} MB); {archive} may be deleted then."
    )
    downloads.fetch(ARCHIVE, folder)
    digest = atomic.sha256_of_file(archive)  # a copy that was put there by hand, or has changed since
    if digest != ARCHIVE.sha256:
        raise CatdogError(f"{archive}: expected sha256 {ARCHIVE.sha256}, found {digest}. Delete it, and run again.")
    return archive


def _write(tfds: Any, builder: Any, archive: Path, folder: Path) -> None:
    """Writes the record files and their metadata; the photos are split into files of about `_SHARD_BYTES` in order."""
    from array_record.python.array_record_module import ArrayRecordWriter

    features = builder.info.features
    with zipfile.ZipFile(archive) as photos, progress_bar("photos") as progress:
        members = _ordered(photos)
        count = max(1, min(len(members), sum(member.file_size for member in members) // _SHARD_BYTES))
        bounds = [round(len(members) * index / count) for index in range(count + 1)]
        task = progress.add_task(f"prepare {NAME}", total=len(members))
        lengths, size, left_out, encoded = [], 0, {}, []
        for index, (start, stop) in enumerate(itertools.pairwise(bounds)):
            length = 0
            path = folder / f"{NAME}-train.array_record-{index:05d}-of-{count:05d}"
            writer = ArrayRecordWriter(os.fspath(path), "group_size:1")  # one photo is read without others
            try:
                for name, data, note in _kept(photos, members[start:stop]):
                    progress.advance(task)
                    if data is None:
                        left_out[name] = note
                        continue
                    encoded += [name] if note else []
                    example = {"image": io.BytesIO(data), "image/filename": name, "label": name.split("/")[1].lower()}
                    record = features.serialize_example(features.encode_example(example))
                    writer.write(record)
                    length, size = length + 1, size + len(record)
            finally:
                _close(writer)
            lengths.append(length)
    if not sum(lengths):
        raise CatdogError(
            f"{archive}: expected photos PetImages/{{Cat,Dog}}/NUMBER.jpg, found none that decodes. Delete it."
        )
    notes = {"left_out": left_out, "encoded_anew": encoded}
    _describe(tfds, builder, folder, lengths, size, notes)
    say(
        f"prepared {sum(lengths):,} photos; {len(encoded)} encoded again as RGB; {len(left_out)} left out: metadata.json"
    )


def _close(writer: Any) -> None:
    try:
        writer.close()
    except RuntimeError as error:  # how the library reports a full disk
        raise OSError(errno.EIO, str(error)) from None


def _ordered(photos: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The photos in the order of the official builder: by the salted hash of the name."""
    from tensorflow_datasets.core import hashing

    hasher = hashing.Hasher("train")
    members = [member for member in photos.infolist() if _MEMBER.fullmatch(member.filename)]
    return sorted(members, key=lambda member: hasher.hash_key(member.filename))


def _kept(photos: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo]) -> Iterator[tuple[str, bytes | None, str]]:
    """Name, bytes and remark of each photo; no bytes where it does not decode, a remark where they are not the original's."""
    with ThreadPoolExecutor(config.cores()) as pool:
        for start in range(0, len(members), _CHUNK):
            names = [member.filename for member in members[start : start + _CHUNK]]
            for name, (data, note) in zip(names, pool.map(kept, [photos.read(name) for name in names]), strict=True):
                yield name, data, note


def kept(data: bytes) -> tuple[bytes | None, str]:
    """The bytes to keep of a file and a remark: the same where it is a JPEG in RGB, those of one made of it, or none."""
    try:
        image, kind = decoding.load(data)
    except decoding.ImageError as error:
        return None, str(error)
    with Image.open(io.BytesIO(data), formats=decoding.decoders(data)) as stored:
        if kind == "JPEG" and stored.mode == "RGB":
            return data, ""
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=_QUALITY, subsampling=0)
    return encoded.getvalue(), "encoded again"


def _describe(tfds: Any, builder: Any, folder: Path, lengths: list[int], size: int, notes: dict[str, Any]) -> None:
    """Writes dataset_info.json, features.json and metadata.json."""
    official = builder.info
    info = tfds.core.DatasetInfo(
        builder=builder,
        description=_DESCRIPTION,
        features=official.features,
        supervised_keys=official.supervised_keys,
        homepage=official.homepage,
        citation=official.citation,
        metadata=tfds.core.MetadataDict(notes),
    )
    info.set_file_format("array_record", override=True, override_if_initialized=True)
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=NAME, split="train", filetype_suffix="array_record"
    )
    split = tfds.core.SplitInfo(name="train", shard_lengths=lengths, num_bytes=size, filename_template=template)
    info.set_splits(tfds.core.splits.SplitDict([split]))
    info.download_size = ARCHIVE.size
    info.write_to_directory(folder)


def _check_and_sync(tfds: Any, folder: Path) -> None:
    """Reads the number of records back from each file: the writer does not report every failure."""
    from array_record.python.array_record_module import ArrayRecordReader

    written = tfds.builder_from_directory(folder).info.splits["train"]
    for path, expected in zip(written.filepaths, written.shard_lengths, strict=True):
        try:
            reader = ArrayRecordReader(os.fspath(path))
            count = reader.num_records()
            reader.close()
        except (RuntimeError, ValueError) as error:
            raise OSError(errno.EIO, f"{Path(path).name}: {error}") from None
        if count != expected:
            raise OSError(errno.EIO, f"{Path(path).name}: expected {expected} photos, found {count}")
    for file in folder.iterdir():
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
