"""Measures everything on one GPU or TPU within ten minutes, most telling things first.

    python -m scripts.benchmarks.accelerator                       # 560 seconds at most
    python -m scripts.benchmarks.accelerator --seconds 60 --turn 0.2 --tiny    # on any machine, to try it

Needs JAX, Flax, Optax and Pillow; PyTorch is measured beside them where it is there. Packages that
only the command line or reports need may be missing (stand_ins.py), and so may VGG16's weights: random
ones take the same time. Each section is a process of its own (sections.py), so that none keeps the
memory of the card, and one that fails or takes too long costs itself alone. Every figure is written
to artifacts/benchmarks/accelerator-DEVICE.json as soon as it is there.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from catdog_jax.files import sealed
from scripts.benchmarks import stand_ins

ROOT = Path(__file__).parents[2]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "pillow", "torch", "onnxruntime")
# What is measured, in this order, and the share of the time that is left which each may take
SECTIONS = {
    "about": 0.3,
    "sanity": 0.3,
    "limits": 0.2,
    "forward": 0.35,
    "torch": 0.35,
    "extract": 0.35,
    "fit": 0.3,
    "sweep": 0.5,
    "decode": 0.4,
    "evaluate": 0.5,
    "torch compiled": 0.95,
}


def run(section: str, options: Sequence[str], seconds: float) -> Iterator[dict[str, Any]]:
    """Runs a section in a process of its own, and yields its figures as they come; the last one may be an error."""
    command = [sys.executable, "-m", "scripts.benchmarks.sections", section, *options, "--seconds", f"{seconds:.1f}"]
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.extend(process.stderr), daemon=True)  # lest a full pipe stops it
        reader.start()
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            for line in process.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
        finally:
            late = not timer.is_alive()
            timer.cancel()
            process.kill()
        process.wait()
        reader.join(5)
    if late:
        yield {"error": f"stopped after {seconds:.0f} seconds"}
    elif process.returncode:
        last = next((line for line in reversed(said) if line.strip()), f"exit status {process.returncode}")
        yield {"error": last.strip()[:500]}


def versions() -> dict[str, str]:
    """The versions of what is installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _path(folder: Path, device: str) -> Path:
    slug = re.sub(r"[^A-Za-z0-9]+", "-", device or "unknown").strip("-").lower()
    return folder / f"accelerator-{slug}.json"


def _wrong(row: dict[str, Any]) -> bool:
    """Whether a section failed, or a result of the device is not right."""
    return "error" in row or (row.get("unit") == "right" and not row["value"])


def main(argv: Sequence[str] | None = None) -> int:
    """Measures section by section until the time is over; 1 where a section failed or a result is wrong."""
    parser = argparse.ArgumentParser(prog="python -m scripts.benchmarks.accelerator", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=560.0, help="the time for all (default: %(default)s)")
    parser.add_argument(
        "--turn", type=float, default=2.0, help="seconds a figure is measured for (default: %(default)s)"
    )
    parser.add_argument("--tiny", action="store_true", help="few photos and rows, to try the program on any machine")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="what to measure")
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "benchmarks", help="where the JSON is written")
    settings = parser.parse_args(argv)
    options = ["--turn", str(settings.turn), *(["--tiny"] if settings.tiny else [])]
    end = time.monotonic() + settings.seconds
    found: dict[str, Any] = {
        "versions": versions(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "stand-ins": stand_ins.missing(),
        "settings": {"seconds": settings.seconds, "turn": settings.turn, "tiny": settings.tiny},
        "sections": {},
    }
    device = ""
    settings.out.mkdir(parents=True, exist_ok=True)
    for section in settings.sections:
        left = end - time.monotonic()
        if left < 1:
            found["sections"][section] = [{"error": "no time was left"}]
            continue
        rows = found["sections"].setdefault(section, [])
        for row in run(section, options, left * SECTIONS[section]):
            rows.append(row)
            device = device or row.get("device", "")
            print(section, json.dumps(row), flush=True)
            sealed.write_json(_path(settings.out, device), found)
    sealed.write_json(_path(settings.out, device), found)  # with what there was no time for
    return int(any(map(_wrong, (row for rows in found["sections"].values() for row in rows))))


if __name__ == "__main__":
    raise SystemExit(main())
