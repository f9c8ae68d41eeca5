"""Memory stays flat over many photos: what grows with their number is their records, and those are small."""

import json
import os
from pathlib import Path

import pytest
from helpers import measured
from helpers.figures import record
from PIL import Image

pytestmark = pytest.mark.skipif(
    measured.resident() == 0, reason="the system does not tell how much memory a process holds"
)

LEAST = 40  # MB that an allocator may add by chance; a decoded photo is 0.15
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def photos_of(root: Path, count: int) -> Path:
    """Names of one small photo."""
    root.mkdir()
    Image.new("RGB", (8, 8), "red").save(root / "one.png")
    for split, share in SHARES.items():
        for kind in ("cats", "dogs"):
            (root / split / kind).mkdir(parents=True)
            for i in range(round(count * share / 2)):
                os.symlink(root / "one.png", root / split / kind / f"{i:06d}.png")
    return root


def extracted(count: int, where: Path) -> tuple[int, int]:
    """The largest resident size in MB, and what it grew by after the first fifth of the photos."""
    done = measured.run("many", photos_of(where / str(count), count), where / f"out-{count}", 64, seconds=550)
    assert done.status == 0, done.err
    sizes = [size for photos, size in map(json.loads, done.out.splitlines()) if photos >= count // 5]
    return done.peak, max(sizes) - sizes[0]


def test_memory_is_flat_over_many_photos(tmp_path, request):
    long = request.config.getoption("--long")
    few, many = (10_000, 100_000) if long else (500, 2_500)
    before, _ = extracted(few, tmp_path)
    peak, growth = extracted(many, tmp_path)
    assert growth < LEAST
    assert peak - before < LEAST + 100 * (many - few) / 100_000
    a_hundred_thousand = round((peak - before) * 100_000 / (many - few))
    record("long run", {f"largest RSS in MB of {few:,} photos": before, f"largest RSS in MB of {many:,} photos": peak,
                        "grown by in MB after the first fifth": growth,
                        "MB for each 100,000 photos": a_hundred_thousand}, long)  # fmt: skip
