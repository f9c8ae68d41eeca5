"""What there is to check at a path, for `catdog verify`: every file below it, each with what it can be compared with.

A feature cache's manifest and sidecars carry their own hashes and those of the arrays. Heads,
weights, models and pages carry a seal over all of their bytes, and JSON files the hash of their
contents. A run's settings list the hashes of its tables and plots; the folder of a Triton model and
that for browsers have a list of all of their files; embeddings have a list beside them. What has none
of these is named.

A new kind of file is a line in `FILES`; a new kind of folder, whose files are checked by something
else than themselves, is a line in `FOLDERS`.
"""

import contextlib
import functools
import importlib.util
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from catdog_jax.console import progress_bar
from catdog_jax.errors import CatdogError
from catdog_jax.features import growing
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import atomic, atomic_folder, sealed
from catdog_jax.files.buckets import Location, UnreachableError
from catdog_jax.heads.run_directory import (
    COMPARISON,
    HEAD,
    METRICS,
    MODELS,
    REPORTS,
    SETTINGS,
    WHOLE,
    OtherHeadError,
    RunDirectory,
    check_head,
)
from catdog_jax.photos import sources
from catdog_jax.runtime import embeddings

_SHEETS, _PAGES = (*METRICS, SETTINGS, WHOLE, COMPARISON, "audit.json"), (*REPORTS, "audit.html")
_OLDER = "no seal: written by an older version"  # which sealed fewer kinds of files
_UNKNOWN = "not checked: no hash of it is known"
_UNFINISHED = "not checked: of an extraction that is at work or was interrupted; run it again to finish it"
_WITHOUT_JAX = "whole, but not compared with the files beside it, which takes catdog-jax[cpu]"
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


class Verified(NamedTuple):
    """What came of the checks.

    Attributes:
      whole: what is as it was written, by place and kind: how many, and their bytes.
      remarks: names of files that there is something to say of, by place and sentence.
      faults: what is missing, altered, or of another head than the one beside it: a sentence each.
    """

    whole: dict[tuple[Location, str], tuple[int, int]]
    remarks: dict[tuple[Location, str], list[str]]
    faults: list[str]


def verify(paths: Iterable[Location]) -> Verified:
    """Checks every file at some paths, with a progress bar.

    Raises:
      CatdogError: a path is none of what can be verified, or its bucket cannot be reached.
    """
    checks = [check for path in paths for check in checks_of(path)]
    result = Verified({}, defaultdict(list), [])
    with progress_bar("files") as progress:
        for place, kind, run in progress.track(checks, description="verify"):
            try:
                size = run()
            except UnreachableError:  # no word on what is there
                raise
            except Remark as remark:
                why, name = remark.args
                result.remarks[place, why].append(name)
            except CatdogError as error:
                what = "of another head" if isinstance(error, OtherHeadError) else "altered"
                result.faults.append(f"{what}: {error}")
            else:
                count, total = result.whole.get((place, kind), (0, 0))
                result.whole[place, kind] = count + 1, total + size
    return result


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
    head_sha256 = _head(path)
    known: set[str] = set()
    for kind in FOLDERS:
        for check, names in kind(path, head_sha256):
            yield check
            known |= names
    entries: list[Location] = sorted(path.glob("*"), key=str)
    for entry in entries:
        if growing.is_place(entry):
            yield Check(path, "", functools.partial(_unfinished, entry))
        elif isinstance(entry, Path) and entry.is_dir():
            yield from _folder(entry, seen)
        elif entry.name not in known:
            yield _file(path, entry, head_sha256)


def _cache(path: Location, _: str | None) -> Iterator[tuple[Check, set[str]]]:
    """A feature cache: its manifest, and its shards with their three files each."""
    if not (path / "manifest.json").exists() and not any(path.glob("*-of-*.json")):
        return
    yield Check(path, "manifest", functools.partial(_manifest, path)), {"manifest.json"}
    for name in _shards(path):
        names = {f"{name}.{end}" for end in ("json", "features.npy", "labels.npy")}
        yield Check(path, "shard", functools.partial(_shard, path, name)), names


def _embeddings(path: Location, _: str | None) -> Iterator[tuple[Check, set[str]]]:
    """Files of `catdog embed`, with the list beside each. They are on disks alone."""
    for rows in sorted(path.glob("*.npy")) if isinstance(path, Path) else ():
        listed = embeddings.list_of(rows)
        if listed.exists():
            yield _rows(path, rows), {rows.name, listed.name}


def _rows(place: Location, rows: Path) -> Check:
    """Rows of `catdog embed`, against the list beside them."""
    return Check(place, "file", lambda: embeddings.load(rows).rows.nbytes)


def _training(path: Location, head_sha256: str | None) -> Iterator[tuple[Check, set[str]]]:
    """What the settings of a run list: its tables and plots. Runs are on disks alone."""
    if isinstance(path, Path):
        for name, sha256 in _of_training(path, head_sha256).items():
            yield Check(path, "file", functools.partial(atomic_folder.check_file, path / name, sha256)), {name}


def _listed(folder: Path) -> Iterator[Check]:
    """The files that a folder's own list names, and those that lie there without a place in it."""
    try:
        known = atomic_folder.listed(folder)
    except CatdogError:
        # Which says what is wrong with it
        yield Check(folder, "list of files", lambda: len(atomic_folder.listed(folder)))
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


def _manifest(path: Location) -> int:
    FeatureCache.open(path)
    return len((path / "manifest.json").read_bytes())


def _shards(path: Location) -> list[str]:
    """The shards that a cache's manifest names and those that lie there; the latter alone where it cannot be read."""
    names = {file.stem for file in path.glob("*-of-*.json")}
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
    """The SHA-256 of the head in a folder, where there is one that can be read; without JAX none can."""
    if not isinstance(path, Path) or not RunDirectory(path).head.exists():
        return None
    with contextlib.suppress(CatdogError, ModuleNotFoundError):
        from catdog_jax.heads import head

        return head.digest(head.load(RunDirectory(path).head).params)
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
    if isinstance(file, Path) and file.suffix == ".npy" and embeddings.list_of(file).exists():
        return _rows(place, file)
    if check := FILES.get(file.name) or FILES.get(file.suffix):
        return Check(place, "file", functools.partial(check, file, head_sha256))
    return Check(place, "", functools.partial(_unknown, file))


def _unfinished(folder: Location) -> int:
    raise Remark(_UNFINISHED, folder.name)


def _unknown(file: Location) -> int:
    raise Remark(_UNKNOWN, file.name)


def _sealed(file: Location, head_sha256: str | None) -> int:
    """Checks the seal over all bytes of a file."""
    size = sealed.check_seal(file)
    if head_sha256 is None and file.name == HEAD and importlib.util.find_spec("jax") is None:
        raise Remark(_WITHOUT_JAX, file.name)
    return size


def _page(file: Location, _: str | None) -> int:
    """Checks a page, which older versions did not seal, and which may be the user's own."""
    try:
        return sealed.check_seal(file)
    except sealed.UnsealedError:
        raise Remark(_OLDER if file.name in _PAGES else _UNKNOWN, file.name) from None


def _model(file: Location, head_sha256: str | None) -> int:
    """Checks an exported model, and whether it is of the head beside it."""
    size = sealed.check_seal(file)
    if head_sha256 and (recorded := _OF_HEAD.search(file.read_bytes())):
        try:
            check_head(file, recorded[1].decode(), head_sha256)
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


# A file's name or suffix -> its check: the file and the SHA-256 of the head beside it -> the file's
# length in bytes. It raises a `CatdogError`, or a `Remark`.
FILES: dict[str, Callable[[Location, str | None], int]] = {
    **dict.fromkeys(_SHEETS, _sheet),
    ".safetensors": _sealed,  # heads and weights
    ".onnx": _model,
    ".html": _page,
}
# A folder and the SHA-256 of the head in it -> checks, each with the names of the files that it
# covers; none where the folder is not of this kind.
FOLDERS: tuple[Callable[[Location, str | None], Iterator[tuple[Check, set[str]]]], ...] = (
    _cache,
    _embeddings,
    _training,
)
