"""Measures `catdog serve` under load, and sends it what strangers send. It connects to this machine alone.

    python -m scripts.benchmarks.load --data photos                # batches of 8 beside single photos
    python -m scripts.benchmarks.load --data photos --requests 10000 --hostile 0.1  # a soak (soak.py)
    python -m scripts.benchmarks.load --url http://127.0.0.1:8000  # a server that runs already

Throughput: the servers are asked in turns, several rounds, by 1 to 32 clients at once that each
wait for their answer; a figure is the median of the rounds. Beside them, in the same turns, ONNX
Runtime alone computes the same photos, decoded before. The clients share the machine with the
server; how much of it they take is said. The soak checks each answer against the verdict computed
without a server, each refusal against the status that is due, and the server's memory. Results go
into --out."""

import asyncio
import collections
import contextlib
import importlib.metadata
import itertools
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro
from rich.table import Table

from catdog_jax.console import console, progress_bar, show
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.files import sealed
from catdog_jax.runtime.default_model import find_model
from catdog_jax.runtime.predictor import Predictor
from scripts.benchmarks.benchmark import processor
from scripts.benchmarks.clients import (
    Address,
    Client,
    Photo,
    binary,
    in_json,
    load_photos,
    loopback,
    request,
    serving,
    tensor,
)
from scripts.benchmarks.soak import TIMEOUTS, soak, soak_table

ROOT = Path(__file__).parents[2]
_PROGRAM = "python -m scripts.benchmarks.load"
ALONE = "ONNX Runtime alone"
PACKAGES = ("catdog-jax", "onnxruntime", "uvicorn", "starlette", "numpy", "pillow")
_MOST_REQUESTS, _MOST_CLIENTS, _MOST_SECONDS = 100_000, 64, 600


@dataclass(frozen=True)
class LoadConfig:
    """Measure a server on this machine, or, with --requests, soak it."""

    model: Path | None = None
    """The exported model; by default the one that `catdog serve` finds."""
    data: str = "demo"
    """A folder of photos, or `demo` for drawn ones."""
    photos: int = 64
    """How many of them are sent in turns."""
    url: str | None = None
    """A server on this machine that runs already, with the same --model; by default servers are started."""
    clients: tuple[int, ...] = (1, 4, 16, 32)
    """Clients at once; the soak has the third of these, or the last."""
    send: Literal["photo", "base64", "tensor", "binary"] = "photo"
    """What a request has: a photo's file, the same in JSON, or its pixels in JSON or in binary."""
    rounds: int = 5
    """Turns of every side; the median counts."""
    seconds: float = 6.0
    """How long a turn lasts."""
    requests: int = 0
    """Requests of a soak; 0 measures throughput instead."""
    hostile: float = 0.1
    """The share of them that is hostile."""
    seed: int = 0
    """Decides their order."""
    threads: int | None = None
    """ONNX Runtime's threads; by default one a core."""
    out: Path = ROOT / "artifacts" / "benchmarks" / "serving.json"
    """Where the results go; those of the other measurement stay."""


# Throughput


class Turn(NamedTuple):
    """A measurement: photos a second, seconds that requests took, and the share of the machine that the clients took."""

    rate: float
    latencies: list[float]
    share: float


REQUESTS: dict[str, Callable[[Photo], bytes]] = {
    "photo": lambda photo: request("/predict", photo.data),
    "base64": lambda photo: in_json([photo.data]),
    "tensor": lambda photo: tensor(photo.pixels),
    "binary": lambda photo: binary(photo.pixels),
}


async def ask_for(address: Address, photos: Sequence[Photo], clients: int, seconds: float, send: str = "photo") -> Turn:
    """Clients that each send a photo, as a request of `send`, wait for the answer, and send the next.

    Raises:
      CatdogError: an answer is not a verdict.
    """
    latencies: list[float] = []
    order = itertools.cycle([REQUESTS[send](photo) for photo in photos])
    ends = time.perf_counter() + seconds

    async def client() -> None:
        connection = Client(address)
        while (begun := time.perf_counter()) < ends:
            answer = await connection.ask(next(order))
            if answer.status != 200:
                raise CatdogError(f"{send}: expected the status 200, found {answer.status}: {answer.body[:200]!r}.")
            latencies.append(time.perf_counter() - begun)
        connection.close()

    begun, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    took = time.perf_counter() - begun
    return Turn(len(latencies) / took, latencies, (time.process_time() - used) / took / (os.cpu_count() or 1))


def alone(predictor: Predictor, photos: Sequence[Photo], size: int, seconds: float) -> Turn:
    """The model without a server, on photos that are decoded."""
    pixels = np.stack([photo.pixels for photo in (*photos, *photos)])
    latencies, begun = [], time.perf_counter()
    for start in itertools.cycle(range(0, len(photos) - size + 1, size)):
        before = time.perf_counter()
        predictor.explain(pixels[start : start + size])
        latencies.append(time.perf_counter() - before)
        if time.perf_counter() - begun > seconds:
            break
    return Turn(size * len(latencies) / (time.perf_counter() - begun), latencies, 0.0)


def throughput(config: LoadConfig, model: Path, predictor: Predictor, photos: Sequence[Photo]) -> list[dict[str, Any]]:
    """All sides in turns: a row a side and number of clients."""
    sizes = {"batches of 8": "8", "single photos": "1"} if config.url is None else {"the server": ""}
    turns: dict[tuple[str, int], list[Turn]] = collections.defaultdict(list)
    with contextlib.ExitStack() as stack, progress_bar("turns") as progress:
        servers = {
            name: stack.enter_context(serving(config.url, model, *options(config), "--batch-size", size)).address
            for name, size in sizes.items()
        }
        task = progress.add_task("throughput", total=config.rounds * (len(servers) * len(config.clients) + 2))
        for address in servers.values():
            asyncio.run(ask_for(address, photos, 8, 1))
        for _ in range(config.rounds):
            for size in (1, 8):
                turns[ALONE, size].append(alone(predictor, photos, min(size, len(photos)), config.seconds))
                progress.advance(task)
            for clients, (name, address) in itertools.product(config.clients, servers.items()):
                turns[name, clients].append(asyncio.run(ask_for(address, photos, clients, config.seconds, config.send)))
                progress.advance(task)
    return [_row(name, at_once, found) for (name, at_once), found in turns.items()]


def _row(name: str, at_once: int, turns: Sequence[Turn]) -> dict[str, Any]:
    rates, latencies = [turn.rate for turn in turns], [1000 * one for turn in turns for one in turn.latencies]
    return {
        "side": name,
        "at once": at_once,
        "photos/s": {"median": statistics.median(rates), "low": min(rates), "high": max(rates), "rounds": rates},
        "p50 ms": float(np.percentile(latencies, 50)),
        "p99 ms": float(np.percentile(latencies, 99)),
        "requests": len(latencies),
        "share of the machine that the clients took": statistics.median(turn.share for turn in turns),
    }


def throughput_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows, each beside ONNX Runtime alone with 8 photos at once."""
    table = Table(
        "", "at once", "photos/s", "lowest to highest", "p50", "p99", "of ONNX Runtime's", title="photos a second"
    )
    best = next(row["photos/s"]["median"] for row in rows if row["side"] == ALONE and row["at once"] == 8)
    for row in rows:
        rate = row["photos/s"]
        cells = [f"{rate['median']:.1f}", f"{rate['low']:.1f} – {rate['high']:.1f}"]
        times = [f"{row['p50 ms']:,.0f} ms", f"{row['p99 ms']:,.0f} ms"]
        table.add_row(row["side"], str(row["at once"]), *cells, *times, f"{rate['median'] / best:.0%}")
    return table


# The command


def options(config: LoadConfig) -> list[str]:
    """What each server is started with."""
    return [] if config.threads is None else ["--threads", str(config.threads)]


def check_settings(config: LoadConfig) -> None:
    """Raises UsageError where a setting is out of range: this is a tool to measure with, and not to flood with."""
    if config.url is not None:
        loopback(config.url)
    if not 0 <= config.requests <= _MOST_REQUESTS or not 0 <= config.hostile <= 1:
        raise UsageError(
            f"--requests, --hostile: expected 0 to {_MOST_REQUESTS:,} and 0 to 1, found {config.requests} and {config.hostile}."
        )
    if not config.clients or not all(1 <= one <= _MOST_CLIENTS for one in config.clients):
        raise UsageError(f"--clients: expected numbers from 1 to {_MOST_CLIENTS}, found {config.clients}.")
    if config.rounds < 1 or config.photos < 1 or not 0 < config.seconds <= _MOST_SECONDS:
        raise UsageError(f"--rounds, --photos, --seconds: expected 1 or more, and at most {_MOST_SECONDS} seconds.")


def main(config: LoadConfig, command: str) -> int:
    """Measures, prints the table and keeps the result; 1 where the soak had an answer that was not as expected."""
    check_settings(config)
    model = find_model(config.model)
    predictor = Predictor(model, threads=config.threads)
    photos = load_photos(config.data, config.photos, predictor)
    busy = os.getloadavg()[0]
    if config.requests:
        clients = config.clients[:3][-1]
        with serving(config.url, model, *options(config), *TIMEOUTS) as server:
            result = soak(server, photos, config.requests, config.hostile, clients, config.seed)
        name, shown = "soak", soak_table(result)
    else:
        rows = throughput(config, model, predictor, photos)
        name, result = (
            "throughput",
            {"sent": config.send, "rounds": config.rounds, "seconds a turn": config.seconds, "rows": rows},
        )
        shown = throughput_table(rows)
    show(shown)
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    load = {"before": busy, "after": os.getloadavg()[0]}  # above the cores, other work took a part of the machine
    machine = {"processor": processor(), "cores": os.cpu_count(), "load average": load, "versions": versions}
    described = {
        "command": command,
        "machine": machine,
        "model": predictor.metadata.get("precision", ""),
        "photos": len(photos),
    }
    known = json.loads(config.out.read_text()) if config.out.exists() else {}
    config.out.parent.mkdir(parents=True, exist_ok=True)
    sealed.write_json(config.out, {**known, name: {**described, **result}})
    console.print(f"written: {config.out}", markup=False, soft_wrap=True)
    return int(bool(config.requests and result["not as expected"]["count"]))


def run(argv: Sequence[str] | None = None) -> int:
    """The command: its status, or the exit status of the error that it prints."""
    try:
        command = f"{_PROGRAM} {shlex.join(sys.argv[1:] if argv is None else argv)}"
        return main(tyro.cli(LoadConfig, args=argv, prog=_PROGRAM, description=__doc__), command)
    except CatdogError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return error.exit_status


if __name__ == "__main__":
    raise SystemExit(run())
