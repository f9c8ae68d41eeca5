"""A process that fails at a chosen step of writing: killed, or told that the disk is full or broken.

Run as a program it imports the package once and forks a child for every fault, before JAX's backend
starts. It patches the primitives that `files.atomic` and the test's bucket write with; the package
itself knows nothing of it."""

import dataclasses
import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from catdog_jax.backbone.pooling import Pool
from catdog_jax.commands import extract as extract_command
from catdog_jax.commands import train
from catdog_jax.config import PRESETS, ExtractConfig, TrainConfig
from catdog_jax.deployment import triton
from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic
from catdog_jax.heads import head, search
from catdog_jax.photos.fingerprint import Fingerprint
from helpers import object_store
from helpers.blocks import stand_in


class Steps:
    """Counts what is done to files, and strikes at one step."""

    def __init__(self, strike_at: int | None, strike: Callable[[], None]):
        self.names: list[str] = []
        self._strike_at, self._strike = strike_at, strike

    def step(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) - 1 == self._strike_at:
            self._strike()

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*arguments: Any, **options: Any) -> Any:
            self.step(f"before {name}")
            result = call(*arguments, **options)
            self.step(f"after {name}")
            return result

        return stepped

    def open(self, path: Path, mode: str, **options: Any) -> Any:
        if "w" not in mode:
            return open(path, mode, **options)
        self.step("before open")
        return _File(open(path, mode, **options), self)

    def patch(self) -> None:
        atomic.open = self.open  # type: ignore[attr-defined]
        # The disk's part: only a power cut could tell, and it is slow
        os.fsync = self.around("fsync", lambda _: None)
        for name in ("replace", "rename", "unlink"):
            setattr(os, name, self.around(name, getattr(os, name)))
        object_store.Store.pipe_file = self.around("PUT", object_store.Store.pipe_file)


class _File:
    def __init__(self, file: Any, steps: Steps):
        self._file, self._steps = file, steps
        self.flush = steps.around("flush", file.flush)
        self.fileno = file.fileno

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        """Half of it reaches the disk before the step in the middle."""
        self._steps.step("before write")
        self._file.write(data[: len(data) // 2])
        self._file.flush()
        self._steps.step("half a write")
        self._file.write(data[len(data) // 2 :])
        self._steps.step("after write")
        return len(data)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def failing(number: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


STRIKES = {"SIGKILL": kill, "ENOSPC": failing(errno.ENOSPC), "EIO": failing(errno.EIO)}


def extract(photos: Path, out: Path) -> None:
    stand_in()
    extract_command.extract(ExtractConfig(data=str(photos), out=out, shard_size=8, workers=1))


def extract_into_a_bucket(photos: Path, out: Path) -> None:
    stand_in()
    extract_command.extract(ExtractConfig(data=str(photos), out=object_store.bucket(out), shard_size=8, workers=1))


def finish_training(_: Path, out: Path, seed: int = 1, swept: bool = False) -> None:
    rng = np.random.default_rng(seed)
    params = {"output": {"kernel": rng.normal(size=(512, 1)).astype(np.float32), "bias": np.zeros(1, np.float32)}}
    best = head.Epoch(seed, 0.1, 0.2, 0.3, 0.4)
    recipe = PRESETS["default"]
    told = ((best,), (head.Trial(recipe, best),) if swept else ())
    made = Fingerprint(others={"seed": seed})
    fitted = head.FittedHead(Pool.AVG, params, ("cats", "dogs"), made, dataclasses.asdict(recipe), None, *told)
    train.write(TrainConfig(features=out / "features", out=out, seed=seed), fitted)


def finish_sweep(photos: Path, out: Path) -> None:
    search.picture = lambda _: b"a picture"  # drawing it takes a second, and writes nothing
    finish_training(photos, out, swept=True)


def finish_export(_: Path, out: Path, seed: int = 1) -> None:
    atomic.write_bytes(out / "model.onnx", np.random.default_rng(seed).bytes(100_000))


def write_triton(_: Path, out: Path, seed: int = 1) -> None:
    pixels, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("pixels", "probability")
    )
    graph = helper.make_graph(
        [helper.make_node("Relu", ["pixels"], ["probability"])], f"seed {seed}", [pixels], [result]
    )
    model = helper.make_model(graph)
    helper.set_model_props(model, {"classes": '["cats", "dogs"]'})
    triton.write(out, model.SerializeToString(deterministic=True))


JOBS = {
    "extract": extract,
    "extract into a bucket": extract_into_a_bucket,
    "train": finish_training,
    "sweep": finish_sweep,
    "export": finish_export,
    "triton": write_triton,
}


def attempt(job: Callable[..., None], photos: Path, out: Path, strike_at: int | None, strike: str, report: Path) -> int:
    """Runs a job in a child of its own; its wait status: 0, an exit status of 1 for a CatdogError, or the signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 3
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        steps = Steps(strike_at, STRIKES[strike])
        steps.patch()
        job(photos, out)
        status = 0
        report.write_text(json.dumps(steps.names))
    except (CatdogError, OSError):  # the command line makes one line of either
        status = 1
    finally:
        os._exit(status)


def serve() -> None:
    """Answers lines of JSON, the arguments of `attempt`, with its wait status."""
    for line in sys.stdin:
        job, photos, out, strike_at, strike, report = json.loads(line)
        print(attempt(JOBS[job], Path(photos), Path(out), strike_at, strike, Path(report)), flush=True)


if __name__ == "__main__":
    serve()
