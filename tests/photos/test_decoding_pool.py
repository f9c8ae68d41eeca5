"""Decoding in processes: the same as in threads, whatever the photos are, and whatever happens to the processes."""

import dataclasses
import errno
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import corpus

from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic
from catdog_jax.photos import decoding, decoding_pool, decoding_worker, folders, prefetch, sources
from catdog_jax.photos.prefetch import Decoded
from catdog_jax.photos.recipe import DEFAULT
from catdog_jax.photos.sources import Record

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the system has no files without a name to share")
on_linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def of_file(path: Path) -> Record:
    return Record(path.name, 0, "train", 0, functools.partial(decoding.read_photo, path))


def of_bytes(name: str, data: bytes) -> Record:
    return Record(name, 0, "train", len(data), lambda: data)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """60 photos, each with pixels of its own."""
    paths = [tmp_path / f"{number:02}.png" for number in range(60)]
    for number, path in enumerate(paths):
        path.write_bytes(corpus.encoded(corpus.quarters(side=2 * number + 2), "PNG"))
    return paths


def copies(decoded: Iterable[Decoded]) -> Iterator[Decoded]:
    """Pixels of a process are there until the next photo."""
    for one in decoded:
        yield dataclasses.replace(one, pixels=None if one.pixels is None else one.pixels.copy())


def kept(decoded: Iterable[Decoded]) -> list[Decoded]:
    return [*copies(decoded)]


def assert_same(found: list[Decoded], expected: list[Decoded]) -> None:
    assert [(one.record, one.sha256, one.reason) for one in found] == [
        (one.record, one.sha256, one.reason) for one in expected
    ]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels, strict=True)


@pytest.fixture
def fatal(monkeypatch) -> Callable[[str], None]:
    """Lets each process first run some Python, in which it may spoil `decoding`."""

    def start_with(code: str) -> None:
        before, last = decoding_pool._START.rsplit("\n", 1)
        monkeypatch.setattr(decoding_pool, "_START", f"{before}\n{code}\n{last}")

    return start_with


DIES = """
import os, signal
from catdog_jax.photos import decoding
real = decoding.decode
def decode(data, *rest):
    if b"deadly" in data:
        os.kill(os.getpid(), signal.{signal})
    return real(data, *rest)
decoding.decode = decode
"""


def test_odd_photos_have_the_verdicts_of_threads(tmp_path):
    """As files, which a process reads by itself, and as bytes, which are sent to it."""
    records = []
    for number, case in enumerate(corpus.cases()):
        path = tmp_path / str(number) / case.name
        path.parent.mkdir()
        case.place(path)
        records.append(of_file(path))
        if path.is_file() and path.stat().st_size < 2**16:
            records.append(of_bytes(f"{number} as bytes", path.read_bytes()))
    found = kept(decoding_pool.decoded(records, 2, 32, DEFAULT))
    assert sum(one.pixels is not None for one in found) > 100
    assert sum(one.pixels is None for one in found) > 100
    assert_same(found, kept(prefetch.decoded(records, 2, 32, DEFAULT)))


def test_photos_come_in_order_through_a_small_memory(files):
    """More photos than slots, of files below a folder, which is another way to name them."""
    root = files[0].parent
    records = [folders.record_of(root, path.name, 0, "train") for path in files]
    assert_same(
        kept(decoding_pool.decoded(records, 2, 8, DEFAULT)),
        [prefetch.decode_record(record, DEFAULT) for record in records],
    )


def test_what_is_known_is_not_decoded_unless_its_bytes_have_changed(files):
    records = [of_file(path) for path in files[:3]]
    known = {files[0].name: atomic.sha256(files[0].read_bytes()), files[1].name: "of other bytes"}
    found = kept(decoding_pool.decoded(records, 1, 8, DEFAULT, known))
    assert [one.pixels is None for one in found] == [True, False, False]
    assert [one.reason for one in found] == [""] * 3
    assert_same(found, kept(prefetch.decoded(records, 1, 8, DEFAULT, known)))


def test_no_photo_is_no_work():
    assert [*decoding_pool.decoded([], 1, 8, DEFAULT)] == []


@pytest.mark.parametrize("as_bytes", [False, True])
def test_what_cannot_be_read_is_an_error_behind_the_photos_before_it(files, monkeypatch, as_bytes):
    """A file that the process cannot read is read again by the parent, which fails as threads do."""
    monkeypatch.setattr(sources, "_BEFORE_RETRY", 0)

    def fails() -> bytes:
        raise decoding.UnreadableError("cannot be read: Input/output error")

    broken = Record("broken", 0, "train", 0, fails)
    if not as_bytes:
        if os.geteuid() == 0:
            broken = of_file(Path("/proc/self/mem"))  # a regular file, whose beginning even root cannot read
        else:
            files[5].chmod(0)
            broken = of_file(files[5])
    records = [*map(of_file, files[:5]), broken, *map(of_file, files[6:])]
    found = []
    with pytest.raises(CatdogError, match=r"cannot be read: .*, twice\. Repair the disk"):
        found.extend(one.record.id for one in decoding_pool.decoded(records, 2, 16, DEFAULT))
    assert found == [path.name for path in files[:5]]


def test_the_errors_of_a_record_of_ones_own_are_raised_in_order(files):
    def fails() -> bytes:
        raise ZeroDivisionError("of mine")

    records = [*map(of_file, files[:9]), Record("mine", 0, "train", 0, fails), *map(of_file, files[10:])]
    found = []
    with pytest.raises(ZeroDivisionError, match="of mine"):
        found.extend(one.record.id for one in decoding_pool.decoded(records, 2, 16, DEFAULT))
    assert found == [path.name for path in files[:9]]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_photo_that_ends_its_process_is_named_and_the_others_are_decoded(files, fatal, capfd, number):
    fatal(DIES.format(signal=number.name))
    records = [*map(of_file, files[:11]), of_bytes("cats/deadly.jpg", b"deadly"), *map(of_file, files[12:])]
    found = []
    with pytest.raises(CatdogError) as error:
        found.extend(copies(decoding_pool.decoded(records, 2, 32, DEFAULT)))
    assert_same(found, [prefetch.decode_record(record, DEFAULT) for record in records[:11]])
    assert str(error.value) == (
        "'cats/deadly.jpg': expected a photo that can be decoded, found that decoding it ends the process, 3 times "
        f"({number.name}). Leave it out with --exclude FILE, or use fewer --workers where memory is short; then go on."
    )
    said = " ".join(capfd.readouterr().err.split())
    assert said.count(f"'cats/deadly.jpg': its process ended ({number.name}); another one decodes it again") == 2


def test_a_process_that_is_killed_once_loses_nothing(files, monkeypatch, capfd):
    killed = []

    def first_process(process: decoding_pool._Process, *_: object) -> None:
        if not killed:
            killed.append(process._popen.pid)
            process._popen.kill()

    ask = decoding_pool._Process.ask
    monkeypatch.setattr(decoding_pool._Process, "ask", lambda *args: first_process(*args) or ask(*args))
    records = [*map(of_file, files)]
    assert_same(
        kept(decoding_pool.decoded(records, 2, 16, DEFAULT)),
        [prefetch.decode_record(record, DEFAULT) for record in records],
    )
    said = " ".join(capfd.readouterr().err.split())
    assert "ended (SIGKILL); another one decodes it again" in said
    assert killed


def test_processes_that_never_stay_are_an_error(files, monkeypatch):
    monkeypatch.setattr(decoding_pool._Process, "wait_until_ready", lambda process: process._popen.kill())
    with pytest.raises(
        CatdogError, match=r"expected processes that start and stay, found SIGKILL\. Use --decode-in threads"
    ):
        [*decoding_pool.decoded(map(of_file, files), 1, 8, DEFAULT)]


def test_processes_that_do_not_start_leave_the_work_to_threads(files, fatal, capfd):
    fatal("sys.exit(3)")
    found = kept(decoding_pool.decoded(map(of_file, files[:3]), 1, 8, DEFAULT))
    assert [one.record.id for one in found] == [path.name for path in files[:3]]
    said = " ".join(capfd.readouterr().err.split())
    assert (
        "photos are decoded in threads, because a process that decodes ended at its start, with exit status 3" in said
    )


@pytest.mark.parametrize(
    ("slots", "said"),
    [
        (32, "there is memory to share for 32 decoded photos only; decoding may wait"),
        (31, "photos are decoded in threads, because 5 MB of memory to share were expected, and found: No space left"),
    ],
)
def test_little_shared_memory_is_told(files, monkeypatch, capfd, slots, said):
    """Half of what is asked for, as long as there is some for each process."""
    reserve = os.posix_fallocate

    def reserve_some(descriptor: int, start: int, size: int) -> None:
        if size > decoding_worker.size_of(slots, DEFAULT.size):
            raise OSError(errno.ENOSPC, "No space left on device")
        reserve(descriptor, start, size)

    monkeypatch.setattr(os, "posix_fallocate", reserve_some)
    records = [*map(of_file, files)]
    assert_same(
        kept(decoding_pool.decoded(records, 2, 64, DEFAULT)),
        [prefetch.decode_record(record, DEFAULT) for record in records],
    )
    assert said in " ".join(capfd.readouterr().err.split())


def test_memory_lies_in_a_file_where_the_system_has_none_in_memory(files, monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    records = [*map(of_file, files[:20])]
    assert_same(
        kept(decoding_pool.decoded(records, 1, 8, DEFAULT)),
        [prefetch.decode_record(record, DEFAULT) for record in records],
    )


def test_who_stops_early_leaves_no_process_and_no_open_file(files, monkeypatch):
    started = []
    start = decoding_pool._Process.start
    monkeypatch.setattr(
        decoding_pool._Process, "start", lambda process: start(process) or started.append(process._popen)
    )
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    photos = decoding_pool.decoded(map(of_file, files), 2, 16, DEFAULT)
    assert next(photos).record.id == files[0].name
    photos.close()
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_a_process_imports_neither_jax_nor_anything_else_that_is_slow():
    code = "import sys; from catdog_jax.photos import decoding_worker; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"jax", "jaxlib", "flax", "scipy", "sklearn", "rich", "onnxruntime", "multiprocessing"} & {*loaded}


# A script without `if __name__ == "__main__"`, which tells of its processes and then waits, or goes on
SCRIPT = """
import functools, os, signal, sys, time
from pathlib import Path
from catdog_jax.photos import decoding, decoding_pool
from catdog_jax.photos.recipe import DEFAULT
from catdog_jax.photos.sources import Record

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is started to ignore it
print("once", flush=True)
photos = [Path(path) for path in sys.argv[2:]]
records = [Record(path.name, 0, "train", 0, functools.partial(decoding.read_photo, path)) for path in photos]
decoded = decoding_pool.decoded(records, 2, 16, DEFAULT)
print(next(decoded).record.id, flush=True)
print(*Path(f"/proc/self/task/{os.getpid()}/children").read_text().split(), flush=True)
if sys.argv[1] == "wait":
    time.sleep(60)
print(len([*decoded]) + 1)
"""


def script(does: str, files: list[Path], tmp_path: Path) -> subprocess.Popen:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), does, *map(str, files)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def are_gone(processes: list[str]) -> bool:
    """Whether they end within some seconds; a zombie that nobody has waited for yet has ended."""
    for _ in range(600):
        states = [path.read_text().rpartition(")")[2].split()[0] for path in stats(processes)]
        if all(state == "Z" for state in states):
            return True
        time.sleep(0.05)
    return False


def stats(processes: list[str]) -> list[Path]:
    return [path for path in (Path(f"/proc/{process}/stat") for process in processes) if path.exists()]


@on_linux
def test_a_process_ignores_what_is_for_its_parent_and_ends_first_where_memory_runs_out(files):
    photos = decoding_pool.decoded(map(of_file, files), 1, 16, DEFAULT)
    next(photos)
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        if b"decoding_worker" in command:
            os.kill(int(child), signal.SIGTERM)
            os.kill(int(child), signal.SIGINT)
            assert Path(f"/proc/{child}/oom_score_adj").read_text() == "500\n"
            break
    else:
        pytest.fail("there is no process that decodes")
    assert len([*photos]) == 59


@on_linux
def test_a_script_without_a_guard_runs_once(files, tmp_path):
    out, errors = script("go on", files, tmp_path).communicate(timeout=60)
    lines = out.splitlines()
    assert [lines[0], lines[1], lines[3]] == ["once", files[0].name, "60"], errors
    assert errors == ""


@on_linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_their_parent(files, tmp_path, number):
    """Killed, it cannot end them; and Ctrl-C, which a terminal sends to the whole group, prints one traceback, its own."""
    parent = script("wait", files, tmp_path)
    try:
        assert [parent.stdout.readline() for _ in range(2)] == ["once\n", f"{files[0].name}\n"]
        children = parent.stdout.readline().split()
        assert len(children) >= 2
        os.killpg(parent.pid, number)
        _, errors = parent.communicate(timeout=60)
    finally:
        parent.kill()
    assert are_gone(children)
    assert errors.count("Traceback") == (number == signal.SIGINT), errors
