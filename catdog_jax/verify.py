"""`catdog verify`: is everything that was written still what was written?

A feature cache's manifest and sidecars carry their own hashes and those of the arrays; heads, weights and models carry a seal
over all of their bytes. The other files of a run (figures, pages, histories) are for people and carry none.
"""

from collections.abc import Callable, Iterator

from rich.table import Table
from rich.text import Text

from catdog_jax import data, storage
from catdog_jax.buckets import Place, UnreachableError
from catdog_jax.cache import FeatureCache
from catdog_jax.config import VerifyConfig
from catdog_jax.console import printable, progress_bar, show
from catdog_jax.errors import CatdogError

_SEALED = (".safetensors", ".onnx")
Check = tuple[Place, str, Callable[[], int]]  # of what, what it is, and what checks it and returns the bytes


def verify(config: VerifyConfig) -> int:
    """Checks every file, prints a line for each that differs, and a table of the rest.

    Returns:
      0, or 1 where something is missing or altered.

    Raises:
      CatdogError: a path is none of what can be verified, or its bucket cannot be reached.
    """
    checks = [check for path in config.paths for check in checks_of(path)]
    sums: dict[tuple[Place, str], tuple[int, int]] = {}
    faults = []
    with progress_bar("files") as progress:
        for path, kind, check in progress.track(checks, description="verify"):
            try:
                count, size = sums.get((path, kind), (0, 0))
                sums[path, kind] = count + 1, size + check()
            except UnreachableError:  # no word on what is there
                raise
            except CatdogError as error:
                faults.append(str(error))
    if sums:
        show(_table(sums))
    for fault in faults:
        show(Text(f"altered: {printable(fault)}", "bold red"))
    return 1 if faults else 0


def checks_of(path: Place) -> Iterator[Check]:
    """What there is to check below a path.

    Raises:
      CatdogError: the path is missing, or nothing that can be verified.
    """
    if path.is_file() and path.suffix in _SEALED:
        yield path, "file", lambda: storage.check_seal(path)
        return
    sealed = sorted((one for one in path.glob("*") if one.suffix in _SEALED), key=str) if path.is_dir() else []
    is_cache = path.is_dir() and ((path / "manifest.json").exists() or any(path.glob("*-of-*.json")))
    if not sealed and not is_cache:
        raise CatdogError(
            f"{path}: expected a feature cache, a run directory, or a .safetensors or .onnx file, "
            f"found {'nothing of these' if path.exists() else 'nothing'}. Check the path."
        )
    yield from ((path, "file", lambda one=one: storage.check_seal(one)) for one in sealed)
    if is_cache:
        yield path, "manifest", lambda: (FeatureCache.open(path), len((path / "manifest.json").read_bytes()))[1]
        yield from ((path, "shard", lambda name=name: _shard(path, name)) for name in _shards(path))


def _shards(path: Place) -> list[str]:
    """The shards that a cache's manifest names and those that lie there; the latter alone where it cannot be read."""
    names = {one.stem for one in path.glob("*-of-*.json")}
    try:
        cache = FeatureCache.open(path)
    except CatdogError:  # told by the manifest's own check
        return sorted(names)
    return sorted(names.union(*(cache.shard_names(split) for split in data.SPLITS)))


def _shard(path: Place, name: str) -> int:
    try:
        cache = FeatureCache.open(path)
    except CatdogError:  # the shard is still checked against its own sidecar
        sidecar = storage.read_sealed_json(path / f"{name}.json", "shard sidecar")
        cache = FeatureCache(path, {"fingerprint": sidecar["fingerprint"]})
    return cache.check_shard(name)


def _table(sums: dict[tuple[Place, str], tuple[int, int]]) -> Table:
    table = Table("as it was written", "", "", "bytes", title="verified")
    for (path, kind), (count, size) in sums.items():
        table.add_row(printable(str(path)), f"{count:,}", kind if count == 1 else f"{kind}s", f"{size:,}")
    return table
