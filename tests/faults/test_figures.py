"""The table in docs/reliability.md is that of artifacts/faults.json: `python tests/faults/test_figures.py` prints it."""

import json
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIGURES = json.loads((ROOT / "artifacts" / "faults.json").read_text())
STRIKES = ("SIGKILL", "ENOSPC", "EIO")
FUZZED = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "npz", "pickle", "safetensors", "onnx")


def total(key: str, *names: str) -> int:
    return sum(FIGURES[name][key] for name in names)


def struck(*jobs: str) -> tuple[str, ...]:
    return tuple(f"{job} {strike}" for job in jobs for strike in STRIKES)


def rows() -> Iterator[tuple[str, str, str]]:
    """What was tried, what came of it, and the module that does it."""
    for job in ("extract", "extract into a bucket", "extract over an older cache"):
        faults, resumed, lost = (
            total(key, *struck(job)) for key in ("faults", "resumed to the same bytes", "bytes lost")
        )
        yield (
            f"{', '.join(STRIKES)} at every step of `{job}`: {faults} faults",
            f"{resumed} resumed to the same bytes, {lost} bytes lost",
            "commits",
        )
    faults, whole, lost = (
        total(key, *struck("train", "export", "triton")) for key in ("faults", "old or new", "bytes lost")
    )
    yield (
        f"the same at every step of a head's files, an ONNX file and a Triton folder: {faults} faults",
        f"{whole} times the old or the whole new one, {lost} bytes lost",
        "commits",
    )
    processes = "processes", "processes, jax.distributed"
    yield (
        f"{total('killed', *processes)} processes killed among {total('processes', *processes)}",
        f"{total('finished all the same', *processes)} others finished, {total('bytes lost', *processes)} bytes lost",
        "processes",
    )
    bits = FIGURES["bits flipped"]
    yield (
        f"{bits['flipped']:,} flipped bits in {bits['files']} files",
        f"{bits['found and named']:,} found and named",
        "verify",
    )
    doors = [f"hostile images, {door}" for door in ("extraction", "predict", "serve")]
    most = max(FIGURES[door]["largest RSS in MB"] for door in doors)
    yield (
        f"{FIGURES[doors[0]]['files']} bad and odd photos, by three ways in",
        f"{total('crashes', *doors)} crashes, at most {most} MB",
        "hostile_images",
    )
    weights, models = FIGURES["hostile weights"], FIGURES["hostile models, serve"]
    yield (
        f"{weights['files']} hostile files of weights",
        f"{weights['canaries touched']} run, at most {weights['largest RSS in MB']} MB",
        "weights_hostile",
    )
    yield (
        f"{models['kinds refused']} kinds of hostile models",
        f"all refused, at most {models['RSS in MB of serve']} MB",
        "hostile_models",
    )
    fuzz = [f"fuzz {name}" for name in FUZZED]
    yield f"{total('executions', *fuzz):,} executions of fuzzed readers", f"{total('findings', *fuzz)} findings", "fuzz"
    run = FIGURES["long run"]
    few, many = (run[f"largest RSS in MB of {count} photos"] for count in ("10,000", "100,000"))
    yield (
        "100,000 photos extracted, with a stand-in for the network",
        f"at most {many} MB, {few} MB with 10,000: {run['MB for each 100,000 photos']} MB for each 100,000; "
        f"{run['grown by in MB after the first fifth']} MB more after the first fifth",
        "long_runs",
    )


def table() -> list[str]:
    return [f"| {tried} | {found} | `test_{module}.py` |" for tried, found, module in rows()]


def test_the_page_has_these_figures():
    page = (ROOT / "docs" / "reliability.md").read_text().splitlines()
    for row in table():
        assert row in page


def test_every_figure_is_in_the_table():
    seen = {
        *struck("extract", "extract into a bucket", "extract over an older cache", "train", "export", "triton"),
        *(f"fuzz {name}" for name in FUZZED),
    }
    seen |= {"processes", "processes, jax.distributed", "bits flipped", "long run", "hostile weights"}
    seen |= {name for name in FIGURES if name.startswith(("hostile images", "hostile models"))}
    assert FIGURES.keys() == seen


if __name__ == "__main__":
    print("\n".join(table()))
