"""What there is to check at a path, for `catdog verify`: every file below it, each with what it can be compared with.

A feature cache's manifest and sidecars carry their own hashes and those of the arrays. Heads,
weights, models and pages carry a seal over all of their bytes, and JSON files the hash of their
contents. A run's settings list the hashes of its tables and plots; the folder of a Triton model and
that for browsers have a list of all of their files. What has none of these is named.
"""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from catdog_jax.errors import CatdogError
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import atomic, atomic_folder, sealed
from catdog_jax.files.buckets import Location
from catdog_jax.heads import head
from catdog_jax.heads.run_directory import (
    COMPARISON,
    METRICS,
    MODELS,
    REPORTS,
    SETTINGS,
    OtherHeadError,
    RunDirectory,
    check_head,
)
from catdog_jax.photos import sources

_SEALED = (".safetensors", ".onnx", ".html")
_SHEETS, _PAGES = (*METRICS, SETTINGS, COMPARISON, "audit.json"), (*REPORTS, "audit.html")
_OLDER = "no seal: written by an older version"  # which sealed fewer kinds of files
_UNKNOWN = "not checked: no hash of it is known"
_OTHER_HEAD = "whole, but of another head than the one beside it"
_OTHER_MODEL = "whole, but it judged another file than the one beside it"
# An entry of an ONNX file's metadata, as protobuf has it
_OF_HEAD = re.compile(rb"\x0a\x0bhead_sha256\x12\x40([0-9a-f]{64})")


class Check(NamedTuple):
    """A file, or a part of a cache.

    Attributes:
      place: the folder that it is counted under, or the file itself.
      kind: what it is; "" where there is nothing to compare it with.
      run: checks it and returns its length in bytes; raises a `CatdogError`, or a `Remark`.
    """

    place: Location
    kind: str
    run: Callable[[], int]


class Remark(Exception):
    """What else there is to say of a file: a sentence, and the file's name."""


def checks_of(path: Location) -> list[Check]:
    """What there is to check at a path: the file, or everything below the folder.

    Raises:
      CatdogError: the path is missing, or there is nothing that can be verified.
    """
    is_folder = path.is_dir()
    checks = list(_folder(path, set()) if is_folder else [_file(path, path, None)])
    if not any(check.kind for check in checks) or not (is_folder or path.is_file()):
        raise CatdogError(
            f"{path}: expected a feature cache, a run directory, another folder or file that `catdog` writes, "
            f"found {'nothing of these' if path.exists() else 'nothing'}. Check the path."
        )
    return checks


# Folders


def _folder(path: Location, seen: set[Path]) -> Iterator[Check]:
    """The checks of a folder and of those in it; `seen` are those that have their checks, because a link may lead to one."""
    if isinstance(path, Path):
        if path.resolve() in seen:
            return
        seen.add(path.resolve())
        if (path / atomic_folder.CONTENTS).exists():
            yield from _listed(path)
            return
    known: set[str] = set()
    if (path / "manifest.json").exists() or any(path.glob("*-of-*.json")):
        shards = _shards(path)
        yield Check(path, "manifest", lambda: (FeatureCache.open(path), len((path / "manifest.json").read_bytes()))[1])
        yield from (Check(path, "shard", functools.partial(_shard, path, name)) for name in shards)
        known |= {
            "manifest.json",
            *(f"{name}.{end}" for name in shards for end in ("json", "features.npy", "labels.npy")),
        }
    head_sha256 = _head(path)
    listed = _of_training(path, head_sha256) if isinstance(path, Path) else {}  # runs are on disks alone
    for name in listed:
        yield Check(path, "file", functools.partial(atomic_folder.check_file, Path(str(path), name), listed[name]))
    known |= set(listed)
    entries: list[Location] = sorted(path.glob("*"), key=str)
    for entry in entries:
        if isinstance(entry, Path) and entry.is_dir():
            yield from _folder(entry, seen)
        elif entry.name not in known:
            yield _file(path, entry, head_sha256)


def _listed(folder: Path) -> Iterator[Check]:
    """The files that a folder's own list names, and those that lie there without a place in it."""
    try:
        known = atomic_folder.listed(folder)
    except CatdogError:
        yield Check(
            folder, "list of files", lambda: len(atomic_folder.listed(folder))
        )  # which says what is wrong with it
        return
    yield from (
        Check(folder, "file", functools.partial(atomic_folder.check_file, folder / name, known[name])) for name in known
    )
    for file in atomic_folder.below(folder):
        if file.relative_to(folder).as_posix() not in known:
            yield Check(folder, "file", functools.partial(_extra, file, folder))


def _extra(file: Path, folder: Path) -> int:
    raise CatdogError(
        f"{file}: expected the files that {folder / atomic_folder.CONTENTS} lists, found one more. Remove it."
    )


def _shards(path: Location) -> list[str]:
    """The shards that a cache's manifest names and those that lie there; the latter alone where it cannot be read."""
    names = {one.stem for one in path.glob("*-of-*.json")}
    try:
        cache = FeatureCache.open(path)
    except CatdogError:  # told by the manifest's own check
        return sorted(names)
    return sorted(names.union(*(cache.shard_names(split) for split in sources.SPLITS)))


def _shard(path: Location, name: str) -> int:
    try:
        cache = FeatureCache.open(path)
    except CatdogError:  # the shard is still checked against its own sidecar
        sidecar = sealed.read_sealed_json(path / f"{name}.json", "shard sidecar")
        cache = FeatureCache(path, {"fingerprint": sidecar["fingerprint"]})
    return cache.check_shard(name)


def _head(path: Location) -> str | None:
    """The SHA-256 of the head in a folder, where there is one that can be read."""
    with contextlib.suppress(CatdogError):
        return head.digest(head.load(RunDirectory(path).head).params) if isinstance(path, Path) else None
    return None  # it has a check of its own


def _of_training(path: Path, head_sha256: str | None) -> dict[str, str]:
    """The files that a run's settings list, and their hashes; none where the settings are of another head."""
    with contextlib.suppress(CatdogError):  # which the check of the settings tells
        settings = sealed.read_sealed_json(path / SETTINGS, "run's settings file")
        if head_sha256 in (None, settings.get("head_sha256")):
            return settings.get("files", {})
    return {}


# Files


def _file(place: Location, file: Location, head_sha256: str | None) -> Check:
    if isinstance(file, Path) and file.exists() and not file.is_file():  # a pipe would be waited for
        return Check(place, "", functools.partial(_unknown, file))
    if file.suffix in _SEALED:
        return Check(place, "file", functools.partial(_sealed, file, head_sha256))
    if file.name in _SHEETS:
        return Check(place, "file", functools.partial(_sheet, file, head_sha256))
    return Check(place, "", functools.partial(_unknown, file))


def _unknown(file: Location) -> int:
    raise Remark(_UNKNOWN, file.name)


def _sealed(file: Location, head_sha256: str | None) -> int:
    try:
        size = sealed.check_seal(file)
    except sealed.UnsealedError:
        if file.suffix != ".html":  # the others never were without
            raise
        raise Remark(_OLDER if file.name in _PAGES else _UNKNOWN, file.name) from None
    if file.suffix == ".onnx" and head_sha256 and (found := _OF_HEAD.search(file.read_bytes())):
        try:
            check_head(file, found[1].decode(), head_sha256)
        except OtherHeadError:
            if file.name in MODELS:
                raise
            raise Remark(_OTHER_HEAD, file.name) from None  # the user's own name for it
    return size


def _sheet(file: Location, head_sha256: str | None) -> int:
    """Checks a JSON file of ours, and whether it is of the head beside it."""
    value = sealed.read_sealed_json(file, "file of `catdog`", older=True)
    if head_sha256:
        check_head(file, value.get("head_sha256"), head_sha256)
    if not sealed.is_sealed(file):
        raise Remark(_OLDER, file.name)
    if file.name == COMPARISON and any(map(functools.partial(_differs, file), value["models"])):
        raise Remark(_OTHER_MODEL, file.name)
    return len(file.read_bytes())


def _differs(comparison: Location, judged: dict[str, str]) -> bool:
    """Whether a model lies beside its figures by its name, and is another file."""
    model = Path(str(comparison)).with_name(judged["model"])
    return model.is_file() and atomic.sha256_of_file(model) != judged["sha256"]
