"""A job in a process of its own, with a time limit, and the most memory that it held."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Finished(NamedTuple):
    """Attributes: the exit status, what was printed, and the largest resident size in MB (0 where the system does not tell)."""

    status: int
    out: str
    err: str
    peak: int


def run(job: str, *arguments: object, seconds: float = 60) -> Finished:
    """Runs a job, `catdog ARGUMENTS` or one of the functions below; one that hangs fails the test."""
    command = [sys.executable, "-m", "helpers.measured", job, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=seconds, stdin=subprocess.DEVNULL)
    *lines, last = done.stderr.decode().splitlines() or ["0"]
    return Finished(done.returncode, done.stdout.decode(), "\n".join(lines), int(last) if last.isdigit() else 0)


def peak(process: str = "self", size: str = "VmHWM") -> int:
    """The largest resident size of a process so far in MB. What `getrusage` says would include the parent's."""
    status = Path(f"/proc/{process}/status")
    sizes = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}
    return int(sizes.get(size, "0 kB").split()[0]) // 1024


def resident() -> int:
    """The resident size of this process now, in MB."""
    return peak(size="VmRSS")


def catdog(*arguments: str) -> int:
    from catdog_jax import cli

    return cli.main(list(arguments))


def record(photos: str, out: str) -> int:
    """Extracts with a network that keeps the pixels it is given: OUT/seen.npy, in the order of the rows."""
    from catdog_jax.commands import extract as extract_command
    from catdog_jax.config import ExtractConfig
    from catdog_jax.features import extraction, extractor
    from helpers import blocks

    seen: list[np.ndarray] = []

    class Recorder(blocks.Blocks):
        batch_size = 1  # so that no row is padding

        def dispatch(self, pixels: np.ndarray) -> np.ndarray:
            seen.extend(pixels.copy())
            return super().dispatch(pixels)

    blocks.stand_in()
    extractor.Extractor = Recorder
    extraction.MAX_SKIPPED_SHARE = 1
    extract_command.extract(ExtractConfig(data=photos, out=Path(out), workers=2))
    np.save(Path(out, "seen.npy"), np.stack(seen))
    return 0


def many(photos: str, out: str, batch: str) -> int:
    """Extracts with the stand-in, and prints the resident size in MB at every tenth of the photos."""
    from catdog_jax.commands import extract as extract_command
    from catdog_jax.config import ExtractConfig
    from catdog_jax.features import extractor
    from helpers import blocks

    class Watched(blocks.Blocks):
        batch_size = int(batch)
        done = 0

        def dispatch(self, pixels: np.ndarray) -> np.ndarray:
            Watched.done += 1
            print(json.dumps([Watched.done * self.batch_size, resident()]))
            return super().dispatch(pixels)

    blocks.stand_in()
    extractor.Extractor = Watched
    print(json.dumps([0, resident()]))
    extract_command.extract(ExtractConfig(data=photos, out=Path(out)))
    return 0


def refuse(*paths: str) -> int:
    """Loads files of weights, and prints for each, in JSON, why it is refused."""
    from catdog_jax.backbone import weights
    from catdog_jax.errors import CatdogError

    for path in paths:
        try:
            weights.load(path, "torch")
            print(json.dumps("taken"), flush=True)
        except CatdogError as error:
            print(json.dumps(str(error)), flush=True)
    return 0


if __name__ == "__main__":
    status = {"catdog": catdog, "record": record, "many": many, "refuse": refuse}[sys.argv[1]](*sys.argv[2:])
    print(peak(), file=sys.stderr)
    sys.exit(status)
