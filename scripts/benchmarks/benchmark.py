"""Measures this project beside PyTorch, ONNX Runtime, Keras, ncnn, MNN and OpenVINO, on whatever machine it runs on.

    python -m scripts.benchmarks.benchmark                       # everything: about half an hour on 2 cores
    python -m scripts.benchmarks.benchmark forward fit --rounds 3
    python -m scripts.benchmarks.benchmark start-up --memory 500 15000

Every contestant is a process of its own (contestants.py). They measure one at a time, in turns,
several rounds; a figure is the median of the rounds, with the lowest and the highest beside it. A
framework that is not installed is named as absent, so installing more of them measures more: pip
install torch tensorflow-cpu keras ncnn MNN openvino. The results, the versions and the machine go into
artifacts/benchmarks/MACHINE.json; a contest that is run again replaces its earlier result there.
"""

import importlib.metadata
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro
from rich.table import Table
from tyro.conf import Positional

from catdog_jax import jax_environment
from catdog_jax.console import console, progress_bar, show
from catdog_jax.files import sealed
from catdog_jax.photos import folders, sources
from catdog_jax.photos.demo import drawing
from scripts.benchmarks.contestants import CONTESTS

PACKAGES = (
    "catdog-jax",
    "jax",
    "numpy",
    "onnxruntime",
    "torch",
    "tensorflow-cpu",
    "tensorflow",
    "keras",
    "ncnn",
    "mnn",
    "openvino",
    "pillow",
)
ROOT = Path(__file__).parents[2]


class Contest(NamedTuple):
    """What is measured: `ours` is compared with every other side; the goals are ratios ours / side."""

    ours: str
    unit: str
    goals: dict[str, float]
    note: str


NOTES = {
    "forward": Contest(
        "catdog_jax",
        "photos/s",
        {
            "PyTorch": 1.5,
            "ONNX Runtime": 1.5,
            "Keras on TensorFlow": 1.5,
            "ncnn": 1.2,
            "MNN": 1.2,
            "OpenVINO": 1.2,
            **{f"{peer} bfloat16": 1.0 for peer in ("PyTorch", "ncnn", "OpenVINO")},
        },
        "the 13 convolutions, uint8 photos in memory to averaged features; float32 unless named otherwise, and ours in "
        "bfloat16, where this processor has AMX, beside others' bfloat16",
    ),
    "extract": Contest(
        "catdog_jax",
        "photos/s",
        {"catdog_jax, forward alone": 0.95},
        "image files to features on disk",
    ),
    "fit": Contest(
        "catdog_jax", "epochs/s", {"Keras on TensorFlow": 20}, "the default head on 15,000 cached rows, compiled before"
    ),
    "fit linear": Contest("catdog_jax", "epochs/s", {"Keras on TensorFlow": 20}, "a linear head on 15,000 cached rows"),
    "sweep": Contest(
        "64 linear heads at once", "heads × epochs/s", {"1 linear head": 8}, "15,000 rows of 1,024 columns"
    ),
    "limits": Contest("", "1/s", {}, "what the machine can do at most"),
}
START_UP = "start-up"


@dataclass(frozen=True)
class BenchmarkConfig:
    """Measure this project beside its peers."""

    contests: Positional[
        tuple[Literal["forward", "extract", "fit", "fit linear", "sweep", "limits", "start-up"], ...]
    ] = (
        "limits",
        "forward",
        "extract",
        "fit",
        "fit linear",
        "sweep",
        "start-up",
    )
    """What to measure; by default all."""
    rounds: int = 5
    """Turns of every contestant; the median counts."""
    seconds: float = 10.0
    """How long a turn of the forward pass lasts."""
    data: str = "demo"
    """Photos for `extract` and `start-up`, as `catdog extract --data` takes them."""
    photos: int = 256
    """How many of them an extraction takes."""
    memory: tuple[int, ...] = ()
    """`start-up`: also the peak memory of `catdog extract` with these numbers of photos, for example 500 15000."""
    out: Path = ROOT / "artifacts" / "benchmarks"
    """Where MACHINE.json is written."""


class Contestant:
    """A process that measures when it is told to."""

    def __init__(self, contest: str, name: str, settings: dict[str, Any]):
        command = [sys.executable, "-m", "scripts.benchmarks.contestants", contest, name, json.dumps(settings)]
        pipe = subprocess.PIPE
        # All sides of a contest live at once, and JAX would take three quarters of a card for each
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=environment
        )
        self.absent = self._answer().get("absent")

    def measure(self) -> float:
        """One measurement: units a second."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._answer()["rate"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate()
            return {"absent": (errors.strip().splitlines() or ["it stopped without a word"])[-1][:200]}
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def contestants(contest: str, settings: dict[str, Any]) -> Iterator[dict[str, Contestant]]:
    """Starts the sides of a contest one after the other, so that none disturbs another's preparation."""
    started: dict[str, Contestant] = {}
    try:
        for name in CONTESTS[contest]:
            started[name] = Contestant(contest, name, settings)
        yield started
    finally:
        for one in started.values():
            one.close()


def run_contest(contest: str, config: BenchmarkConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """Lets the sides measure in turns: {"sides": {name: {"median", "low", "high", "rounds"} or {"absent"}}, …}."""
    rates: dict[str, list[float]] = {}
    with progress_bar("turns") as progress, contestants(contest, settings) as sides:
        present = {name: side for name, side in sides.items() if side.absent is None}
        task = progress.add_task(contest, total=config.rounds * len(present))
        for _ in range(config.rounds):
            for name, side in present.items():
                rates.setdefault(name, []).append(side.measure())
                progress.advance(task)
        absent = {name: {"absent": side.absent} for name, side in sides.items() if side.absent is not None}
    measured = {
        name: {"median": statistics.median(found), "low": min(found), "high": max(found), "rounds": found}
        for name, found in rates.items()
    }
    return {
        "unit": NOTES[contest].unit,
        "note": NOTES[contest].note,
        "sides": measured | absent,
        "settings": _plain(settings),
    }


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: len(value) if isinstance(value, list) else value for name, value in settings.items()}


def table(contest: str, result: dict[str, Any]) -> Table:
    """The sides of a contest, with the ratio of ours to each and the goal for it."""
    ours = NOTES[contest].ours
    shown = Table(
        "",
        "median",
        "lowest to highest",
        "ours / this",
        "goal",
        title=f"{contest}: {result['note']}",
        title_justify="left",
    )
    median = {name: side.get("median") for name, side in result["sides"].items()}
    for name, side in result["sides"].items():
        if "absent" in side:
            shown.add_row(name, "absent", side["absent"], "", "")
            continue
        alike = f"{ours} bfloat16" if "bfloat16" in name else ours
        base = median.get(alike) or median.get(ours)
        ratio = f"{base / side['median']:.2f}" if base and name not in (ours, alike) else ""
        goal = NOTES[contest].goals.get(name)
        cells = [f"{_short(side['median'])} {result['unit']}", f"{_short(side['low'])} – {_short(side['high'])}"]
        shown.add_row(name, *cells, ratio, f"≥ {goal:g}" if goal else "")
    return shown


def _short(value: float) -> str:
    return f"{value:,.2f}" if value < 1e4 else f"{value:.3g}"


# Start-up and memory: whole commands


def start_up(config: BenchmarkConfig) -> dict[str, Any]:
    """Seconds of a whole `catdog extract` of 16 photos, the second time, and the peak memory of larger ones."""
    result: dict[str, Any] = {"unit": "s", "note": "catdog extract of 16 photos, from the shell's prompt and back"}
    seconds = [_extraction(config, 16)[0] for _ in range(config.rounds + 1)][1:]  # the first compiles
    result["sides"] = {
        "catdog extract": {
            "median": statistics.median(seconds),
            "low": min(seconds),
            "high": max(seconds),
            "rounds": seconds,
        }
    }
    result["peak_memory_bytes"] = {str(photos): _extraction(config, photos)[1] for photos in config.memory}
    return result


def _extraction(config: BenchmarkConfig, photos: int) -> tuple[float, int]:
    """Seconds and peak resident bytes of `catdog extract` on so many photos."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for i, path in enumerate(_files(config, photos)):
            split = sources.SPLITS[(i // 2) % 8 if (i // 2) % 8 < 3 else 0]
            link = root / "photos" / split / ("cats", "dogs")[i % 2] / f"{i}{path.suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        command = [
            sys.executable,
            "-m",
            "catdog_jax",
            "extract",
            "--data",
            str(root / "photos"),
            "--out",
            str(root / "features"),
        ]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"catdog extract failed: {errors.strip().splitlines()[-1:]}")
        return time.perf_counter() - start, _bytes(usage)


def _bytes(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _files(config: BenchmarkConfig, count: int) -> list[Path]:
    """So many image files of the data set; from the beginning again where it has fewer."""
    root = drawing.draw_once() if config.data == "demo" else Path(config.data)
    files = [path.resolve() for path in folders.Walk().photos(root)]
    return [files[i % len(files)] for i in range(count)]


# The machine


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, accelerator, system, versions."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    device = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.devices()[0].device_kind)"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "device": device,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": versions,
    }


def processor() -> str:
    """The name of this machine's processor, with its widest vectors."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"model name\s*: (.*)", text)
    widest = next((name for name in ("avx512f", "avx2") if name in text), "")
    return " ".join([found.group(1) if found else platform.machine(), widest.upper()]).strip()


def slug(described: dict[str, Any]) -> str:
    """The name of a machine, for a file."""
    accelerator = [] if described["device"].lower() == "cpu" else [described["device"]]
    return re.sub(
        r"[^A-Za-z0-9]+", "-", " ".join([*accelerator, described["processor"], f"{described['cores']} cores"])
    )


def main(config: BenchmarkConfig) -> None:
    """Runs the contests, prints a table of each as soon as it is done, and keeps the results."""
    jax_environment.prepare()
    described = machine()
    path = config.out / f"{slug(described)}.json"
    known = json.loads(path.read_text())["results"] if path.exists() else {}
    settings = {"seconds": config.seconds, "files": [str(one) for one in _files(config, config.photos)]}
    for contest in config.contests:
        if contest == START_UP:
            known[contest] = start_up(config)
            show(known[contest])
        else:
            known[contest] = run_contest(
                contest, config, settings if contest == "extract" else settings | {"files": []}
            )
            show(table(contest, known[contest]))
        sealed.write_json(path, {"machine": described, "results": known})
    console.print(f"written: {path}", markup=False)


if __name__ == "__main__":
    main(tyro.cli(BenchmarkConfig, prog="python -m scripts.benchmarks.benchmark", description=__doc__))
