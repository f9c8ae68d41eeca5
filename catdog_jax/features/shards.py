"""Writes the files of a feature cache; `cache` says what they are and reads them."""

import functools
import importlib.metadata
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from catdog_jax.backbone.pooling import Pool
from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic, sealed
from catdog_jax.files.buckets import Location, UnreachableError, seen_from
from catdog_jax.photos.dataset import SPLITS, LeftOut
from catdog_jax.photos.fingerprint import Fingerprint

FORMAT = 1
KINDS = ("features", "labels")


@dataclass(frozen=True)
class Rows:
    """What became of a shard's photos.

    Attributes:
      ids: of the photos that could be used, in order.
      labels: their labels, 0 or 1.
      hashes: the SHA-256 of their undecoded bytes.
      skipped: the others: {"id": …, "reason": …}.
      features: float32 [n, views, …] arrays that hold the rows in order.
      groups: what each row belongs to (`Record.group`), where any does; None where nobody says.
    """

    ids: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    features: list[np.ndarray] = field(default_factory=list)
    groups: list[str | None] = field(default_factory=list)


def write_shard(out: Location, name: str, rows: Rows, fingerprint: Fingerprint) -> None:
    """Writes a shard's arrays, then the sidecar that makes them count.

    Raises:
      CatdogError: the features do not fit the stored type, or a file cannot be written.
    """
    dtype = fingerprint.dtype
    nothing = np.zeros(
        (0, len(fingerprint.views or ()), *Pool(str(fingerprint.pool)).shape(fingerprint.recipe.grid)), np.float32
    )
    with np.errstate(over="ignore"):  # what overflows becomes infinity, which is refused
        stored = np.concatenate([nothing, *rows.features]).astype(dtype)
    if not np.isfinite(stored).all():
        raise CatdogError(
            f"{out / name}: features overflow {dtype} or are NaN. Use --dtype float32, or check the weights."
        )
    arrays = {"features": stored, "labels": np.asarray(rows.labels, np.int8)}
    described = {}
    for kind, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        atomic.write_bytes(array_path(out, name, kind), buffer.getvalue())
        described[kind] = {
            "sha256": atomic.sha256(buffer.getvalue()),
            "bytes": buffer.tell(),
            "shape": list(array.shape),
            "dtype": array.dtype.name,
        }
    sidecar = {
        "format": FORMAT,
        "shard": name,
        "fingerprint": fingerprint.to_json(),
        "arrays": described,
        "ids": rows.ids,
        "source_sha256": rows.hashes,
        "skipped": rows.skipped,
    }
    if any(rows.groups):
        sidecar["groups"] = rows.groups
    sealed.write_sealed_json(out / f"{name}.json", sidecar)


def array_path(directory: Location, shard: str, kind: str) -> Location:
    """Where a shard's array lies; `kind` is one of `KINDS`."""
    return directory / f"{shard}.{kind}.npy"


def finished(out: Location, names: Sequence[str], fingerprint: Fingerprint) -> set[str]:
    """The shards that an earlier run left whole. A damaged one counts as absent, so that it is computed again."""
    of_this = {name for name, sidecar in sidecars(out).items() if of_fingerprint(sidecar) == fingerprint}
    return {name for name in names if name in of_this and _is_whole(out, name)}


def _is_whole(out: Location, name: str) -> bool:
    try:
        arrays = read_sidecar(out, name)["arrays"]
        return all(examined(array_path(out, name, kind))[1] == arrays[kind]["sha256"] for kind in KINDS)
    except UnreachableError:
        raise
    except (CatdogError, KeyError, TypeError, OSError):
        return False


def sidecars(out: Location) -> dict[str, dict[str, Any]]:
    """What the shards at a place say of themselves, by name and sorted; without those whose sidecar is damaged.

    Raises:
      UnreachableError: the bucket cannot be reached.
    """
    return dict(_readable(out))


def _readable(out: Location) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in sorted(with_sidecar(out)):
        try:
            sidecar = read_sidecar(out, name)
            of_fingerprint(sidecar)
        except UnreachableError:
            raise
        except (CatdogError, KeyError):
            continue
        yield name, sidecar


def kept(out: Location) -> Fingerprint | None:
    """The fingerprint of the features at a place, of a finished cache or an interrupted one; None where there are none."""
    return next((of_fingerprint(sidecar) for _, sidecar in _readable(out)), None)


def of_fingerprint(sidecar: dict[str, Any]) -> Fingerprint:
    """The fingerprint that a shard's sidecar tells."""
    return Fingerprint.from_json(sidecar["fingerprint"])


def read_sidecar(out: Location, name: str) -> dict[str, Any]:
    """What a shard says of itself: its fingerprint, its ids, the hashes of its photos and arrays, what was skipped.

    Raises:
      CatdogError: it is missing or altered.
    """
    return sealed.read_sealed_json(out / f"{name}.json", "shard sidecar")


def with_sidecar(out: Location) -> set[str]:
    """The shards that some process has finished, going by their sidecars alone, which are written last."""
    return {path.stem for path in out.glob("*-of-*.json")}


def write_manifest(
    out: Location,
    source: str,
    names: Sequence[str],
    fingerprint: Fingerprint,
    left_out: Sequence[LeftOut] = (),
    seen: Location | None = None,
) -> None:
    """Writes the manifest over finished shards, which makes the directory a feature cache.

    `seen` is where the cache will be, if that is another place than the one that it is written at.
    """
    splits: dict[str, Any] = {split: {"rows": 0, "skipped": [], "shards": []} for split in SPLITS}
    for name in names:
        sidecar = read_sidecar(out, name)
        entry = splits[split_of(name)]
        entry["rows"] += len(sidecar["ids"])
        entry["skipped"] += sidecar["skipped"]
        entry["shards"].append({"name": name, "rows": len(sidecar["ids"])})
    versions = {package: importlib.metadata.version(package) for package in ("jax", "numpy", "pillow")}
    if Path(source).exists():  # as seen from the cache, so that both can be found from anywhere
        source = seen_from(seen or out, Path(source))
    manifest = {
        "format": FORMAT,
        "source": source,
        "fingerprint": fingerprint.to_json(),
        "splits": splits,
        "made_with": versions,
    }
    if left_out:
        manifest["left_out"] = [asdict(kind) for kind in left_out]
    sealed.write_sealed_json(out / "manifest.json", manifest)


def split_of(name: str) -> str:
    """The split that a shard belongs to: "train-00003-of-00015" -> "train"."""
    return name.split("-")[0]


def examined(path: Location) -> tuple[int, str, Callable[[], np.ndarray]]:
    """A file's length in bytes, its SHA-256, and what loads the array: mapped into memory, where the file is on a disk."""
    if isinstance(path, Path):
        load = functools.partial(np.load, path, mmap_mode="r", allow_pickle=False)
        return path.stat().st_size, atomic.sha256_of_file(path), load
    content = path.read_bytes()
    return len(content), atomic.sha256(content), lambda: np.load(io.BytesIO(content), allow_pickle=False)
