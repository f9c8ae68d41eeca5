"""A cache of another list of photos is written into a folder in the old one, and then takes its place.

Its shards may have the names of the old ones, which are still needed: as the source of rows, and by
who reads the old cache meanwhile. So they wait in `.growing-…` until they are all there. The
manifest is written there last, and from then on everything is decided: the old manifest is removed,
the files are renamed into their place, what the new cache does not have is removed, and the new
manifest is moved last. Whoever is killed in between leaves a folder with a manifest, from which
the next run goes on. A reader finds the old manifest, none, or the new one.

Buckets know no renames, so a cache in a bucket is not renewed in its place.
"""

import os
import re
import shutil
from pathlib import Path

from catdog_jax.errors import CatdogError
from catdog_jax.features import shards
from catdog_jax.files import atomic, sealed
from catdog_jax.files.buckets import Location
from catdog_jax.photos.fingerprint import Fingerprint

_START = ".growing-"
_OF_A_SHARD = re.compile(r"(\w+-\d{5,}-of-\d{5,})\.(json|features\.npy|labels\.npy)")


def place(out: Path, fingerprint: Fingerprint) -> Path:
    """Where the shards of a new list of photos wait; each list has its own folder."""
    return out / f"{_START}{sealed.sha256_of_json(fingerprint.to_json())[:12]}"


def is_place(path: Location) -> bool:
    """Whether a path is one where shards wait."""
    return path.name.startswith(_START)


def places(out: Location) -> list[Path]:
    """The folders of a cache in which shards wait, of this list of photos or of others."""
    return [path for path in sorted(out.glob(f"{_START}*")) if path.is_dir()] if isinstance(out, Path) else []


def go_on(out: Location) -> None:
    """Puts a new cache in its place whose process was killed while it did so.

    Raises:
      CatdogError: a file cannot be renamed.
    """
    for waiting in places(out):
        if (waiting / "manifest.json").exists():
            assert isinstance(out, Path)
            publish(waiting, out)


def publish(waiting: Path, out: Path) -> None:
    """Puts a new cache, whose manifest is written, in the place of the old one.

    Raises:
      CatdogError: a file cannot be renamed or removed.
    """
    manifest = waiting / "manifest.json"
    try:
        splits = sealed.read_sealed_json(manifest, "feature manifest")["splits"]
    except CatdogError:  # damaged: the shards are not, and the next manifest is written over them
        manifest.unlink()
        return
    names = [shard["name"] for split in splits.values() for shard in split["shards"]]
    try:
        (out / "manifest.json").unlink(missing_ok=True)
        atomic.sync_directory(out)
        for name in names:
            if not (waiting / f"{name}.json").exists():  # it is in its place
                continue
            (out / f"{name}.json").unlink(missing_ok=True)
            for end in (*(f"{kind}.npy" for kind in shards.KINDS), "json"):
                if (waiting / f"{name}.{end}").exists():
                    os.replace(waiting / f"{name}.{end}", out / f"{name}.{end}")
        for path in out.glob("*-of-*"):
            if (shard := _OF_A_SHARD.fullmatch(path.name)) and shard[1] not in names:
                path.unlink()
        atomic.sync_directory(out)
        os.replace(manifest, out / "manifest.json")
        atomic.sync_directory(out)
    except OSError as error:
        raise CatdogError(
            f"{out}: cannot be written: {error.strerror or error}. Correct the permissions, then run the command again."
        ) from error


def clear(out: Location) -> None:
    """Removes what waits of other lists of photos, once a cache is finished."""
    for waiting in places(out):
        shutil.rmtree(waiting, ignore_errors=True)
