"""Many processes on one cache: each takes a share, and holds a lock that the system drops when the process dies."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from catdog_jax import jax_environment
from catdog_jax.console import console
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.files.buckets import Bucket, Location

try:
    import fcntl
except ImportError:  # a platform without them; the writes are atomic all the same
    fcntl = None  # type: ignore[assignment]

_LOCK = ".extract.lock"
_ALONE = ".manifest.lock"
_PATIENCE = 5.0  # seconds in which a process that only looks whether it is alone has looked
_TURN = 600.0  # seconds in which a process has put a cache in its place


@dataclass(frozen=True)
class Share:
    """Which share of the shards a process takes, from 0, and of how many."""

    index: int
    count: int


def share(shard_index: int, num_shards: int, distributed: str | None = None) -> Share:
    """The share of this process: the one that is named, or its place in jax.distributed.

    Raises:
      CatdogError: the other processes of --distributed cannot be found.
      UsageError: an option is out of its range.
    """
    if not 0 <= shard_index < num_shards:
        raise UsageError(f"--shard-index: expected 0 to --num-shards - 1, found {shard_index} of {num_shards}.")
    named = Share(shard_index, num_shards)
    return named if distributed is None else _joined(distributed, named)


def _joined(where: str, named: Share) -> Share:
    """The share that jax.distributed gives this process, which leaves it at once.

    The shares do not need each other. If the processes stayed, the first that dies would end the
    others: JAX's health check does that.
    """
    import jax  # not at the top: the lock of a directory needs none

    jax_environment.keep_sums_right()

    if where != "auto" and named.count < 2:
        raise UsageError(
            f"--distributed {where}: expected --shard-index and --num-shards of 2 or more, found {named.count}."
        )
    try:
        jax.distributed.initialize(*(() if where == "auto" else (where, named.count, named.index)))
        place = Share(jax.process_index(), jax.process_count())
        jax.distributed.shutdown()
    except (RuntimeError, ValueError, TypeError, KeyError, ImportError, OSError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise CatdogError(
            f"--distributed {where}: expected the other processes, found: {reason}. Check the launcher, or name the share "
            "yourself by --shard-index and --num-shards."
        ) from None
    return place


@contextlib.contextmanager
def claim(directory: Location, index: int = 0, count: int = 1) -> Iterator[None]:
    """Holds a directory, or share `index` of `count` of it, against every other process until the block ends.

    A share excludes the same share and the whole, not other shares. A process that finds itself
    alone removes the temporary files of dead ones. Where the file system has no locks, a line says
    so and the work goes on. A bucket has none, and needs none: two processes on one share put the
    same bytes twice.

    Raises:
      CatdogError: another process holds it; the message names its process id and host. Or the
        directory cannot be written.
    """
    if isinstance(directory, Bucket) or fcntl is None:
        yield
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            if count > 1:
                held.enter_context(_locked(directory / f".share-{index}-of-{count}.lock", shared=False))
            held.enter_context(_locked(directory / _LOCK, shared=count > 1))
            yield
    except OSError as error:
        raise CatdogError(
            f"{directory}: cannot be written: {error.strerror or error}. Choose another --out."
        ) from error


@contextlib.contextmanager
def alone(directory: Location) -> Iterator[None]:
    """Waits until no other share of a claimed directory is in such a block, and keeps them out until this one ends."""
    if isinstance(directory, Bucket) or fcntl is None:
        yield
        return
    with _locked(directory / _ALONE, shared=False, patience=_TURN):
        yield


@contextlib.contextmanager
def _locked(path: Path, shared: bool, patience: float = 0.0) -> Iterator[None]:
    descriptor = _acquire(path, shared, _PATIENCE if shared else patience)
    try:
        yield
    finally:
        if _try(descriptor, fcntl.LOCK_EX):  # nobody else holds it: whoever waits for it sees that the name is gone
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, shared: bool, patience: float) -> int:
    """Locks the file that bears the name now: its holder removes the name with the lock."""
    deadline = time.monotonic() + patience
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            alone = _try(descriptor, fcntl.LOCK_EX)
            if alone and _bears_the_name(descriptor, path):
                for temporary in path.parent.glob(".*.tmp") if path.name == _LOCK else ():
                    # Every writer of the directory holds this lock: its own is dead
                    temporary.unlink(missing_ok=True)
            if (alone and not shared) or (shared and _try(descriptor, fcntl.LOCK_SH)):
                if _bears_the_name(descriptor, path):
                    _sign(descriptor)
                    return descriptor
            elif time.monotonic() >= deadline:
                raise CatdogError(
                    f"{path.parent}: expected a directory that no other process extracts into, found "
                    f"{_signature(descriptor)} at work. Wait for it, or choose another --out."
                )
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(0.02)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        console.print(f"this file system has no locks ({error.strerror}): let one process alone extract", markup=False)
    return True


def _bears_the_name(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)


def _signature(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
