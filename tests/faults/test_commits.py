"""Killed, or without space, at every step of every commit: nothing written is lost, nothing half-written counts."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from helpers import injector
from helpers.figures import record

from catdog_jax.heads import run_directory

STEPS = {  # the kinds that there must be
    "extract": {"before write", "half a write", "after flush", "before fsync", "after replace"},
    "extract into a bucket": {"before PUT", "after PUT"},
}
OF_THE_HEAD = (*run_directory.DERIVED, *run_directory.SWEEP)


class Server:
    """The injector, warm, in a process of its own."""

    def __init__(self, photos: Path, report: Path):
        self._photos, self._report = photos, report
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, "-m", "helpers.injector"], stdin=pipe, stdout=pipe, text=True)

    def __call__(
        self,
        job: str,
        out: Path,
        strike_at: int | None = None,
        strike: str = "SIGKILL",
        photos: Path | None = None,
    ) -> int:
        arguments = [job, str(photos or self._photos), str(out), strike_at, strike, str(self._report)]
        print(json.dumps(arguments), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def steps(self, job: str, out: Path, photos: Path | None = None) -> list[str]:
        assert self(job, out, photos=photos) == 0
        return json.loads(self._report.read_text())


@pytest.fixture(scope="module")
def server(small_photos, tmp_path_factory):
    started = Server(small_photos, tmp_path_factory.mktemp("injector") / "steps.json")
    yield started
    started.process.stdin.close()
    started.process.wait(10)
    started.process.stdout.close()


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def places(steps: list[str], long: bool) -> list[int]:
    """All steps in the long form; else every eleventh, or third of few, which meets each kind in one file or another."""
    return list(range(0, len(steps), 1 if long else 11 if len(steps) > 50 else 3))


@pytest.mark.parametrize("job", ["extract", "extract into a bucket"])
@pytest.mark.parametrize("strike", ["SIGKILL", "ENOSPC", "EIO"])
def test_an_extraction_struck_at_any_step_resumes_to_the_same_bytes(server, tmp_path, job, strike, request):
    long = request.config.getoption("--long")
    steps = server.steps(job, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    assert "manifest.json" in expected
    assert not any(name.startswith(".") for name in expected)
    assert STEPS[job] <= set(steps)
    results: Counter[int] = Counter()
    for place in places(steps, long):
        out = tmp_path / str(place)
        status = server(job, out, place, strike)
        assert status == -9 if strike == "SIGKILL" else status in (0, 1), steps[place]
        results[status] += 1
        if out.exists():  # whatever bears its final name is whole
            assert all(expected[name] == content for name, content in contents(out).items() if not name.startswith("."))
        assert server(job, out) == 0
        assert contents(out) == expected, f"{strike} {steps[place]} ({place})"
        shutil.rmtree(out, ignore_errors=True)
    faults = sum(results.values())
    assert results[-9 if strike == "SIGKILL" else 1] > 0
    record(
        f"{job} {strike}",
        {"steps": len(steps), "faults": faults, "resumed to the same bytes": faults, "bytes lost": 0},
        long,
    )


@pytest.mark.parametrize("strike", ["SIGKILL", "ENOSPC", "EIO"])
def test_a_cache_that_grows_is_the_old_one_or_the_whole_new_one(server, small_photos, tmp_path, strike, request):
    """Its shards have the names of the old ones. A reader finds the old manifest, none, or the new one."""
    long = request.config.getoption("--long")
    grown = tmp_path / "photos"
    shutil.copytree(small_photos, grown)
    for kind in ("cats", "dogs"):
        (grown / "train" / kind / "1.png").write_bytes((small_photos / "test" / kind / "0.png").read_bytes())
    shutil.move(grown / "test" / "cats" / "0.png", grown / "test" / "cats" / "renamed.png")
    assert server("extract", tmp_path / "old") == 0
    assert server("extract", tmp_path / "new", photos=grown) == 0
    old, new = contents(tmp_path / "old"), contents(tmp_path / "new")
    assert old.keys() == new.keys()
    shutil.copytree(tmp_path / "old", tmp_path / "whole")
    steps = server.steps("extract", tmp_path / "whole", photos=grown)
    assert contents(tmp_path / "whole") == new
    published = steps.index("before unlink", steps.index("after replace"))
    struck = {*places(steps, long), *range(published, len(steps), 1 if long else 3)}
    manifests: Counter[str] = Counter()
    for place in sorted(struck):
        out = tmp_path / str(place)
        shutil.copytree(tmp_path / "old", out)
        status = server("extract", out, place, strike, photos=grown)
        assert status == -9 if strike == "SIGKILL" else status in (0, 1), steps[place]
        found = {name: content for name, content in contents(out).items() if not name.startswith(".")}
        manifest = found.get("manifest.json")
        assert manifest is None or found in (old, new), f"{strike} {steps[place]} ({place})"
        manifests["none" if manifest is None else "old" if found == old else "new"] += 1
        assert server("extract", out, photos=grown) == 0
        assert contents(out) == new, f"{strike} {steps[place]} ({place})"
        assert not any(path.is_dir() for path in out.iterdir())
        shutil.rmtree(out)
    assert manifests["old"]
    assert manifests["none"]
    figures = {"steps": len(steps), "faults": len(struck), "resumed to the same bytes": len(struck), "bytes lost": 0}
    record(f"extract over an older cache {strike}", figures, long)


@pytest.mark.parametrize("job", ["train", "export"])
@pytest.mark.parametrize("strike", ["SIGKILL", "ENOSPC", "EIO"])
def test_an_output_is_the_old_file_or_the_whole_new_one(server, tmp_path, job, strike, request):
    long = request.config.getoption("--long")
    server.steps(job, tmp_path / "whole")
    new = contents(tmp_path / "whole")
    old = {name: b"old " + name.encode() for name in new}
    for name, content in old.items():
        (tmp_path / "whole" / name).write_bytes(content)
    steps = server.steps(job, tmp_path / "whole")  # over older files there are more
    for place in range(len(steps)):
        out = tmp_path / str(place)
        out.mkdir()
        for name, content in old.items():
            (out / name).write_bytes(content)
        status = server(job, out, place, strike)
        assert status == -9 if strike == "SIGKILL" else status in (0, 1), steps[place]
        found = contents(out)
        assert all(found[name] in (old[name], new[name]) for name in new), f"{strike} {steps[place]}"
        assert server(job, out) == 0
        assert contents(out) == new
        shutil.rmtree(out)
    record(
        f"{job} {strike}", {"steps": len(steps), "faults": len(steps), "old or new": len(steps), "bytes lost": 0}, long
    )


@pytest.mark.parametrize("strike", ["SIGKILL", "ENOSPC", "EIO"])
def test_a_training_cut_off_anywhere_leaves_nothing_that_describes_another_head(server, tmp_path, strike):
    """Figures, pages, models and sweep of another head are gone before the new one is there; the user's file stays."""
    injector.finish_training(tmp_path, tmp_path / "old", seed=2)
    for name in (*OF_THE_HEAD, "mine.onnx"):
        (tmp_path / "old" / name).write_bytes(b"old " + name.encode())
    old = contents(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "whole")
    steps = server.steps("sweep", tmp_path / "whole")
    new = contents(tmp_path / "whole")
    assert set(new) == {"head.safetensors", "history.csv", "config.json", *run_directory.SWEEP, "mine.onnx"}
    heads: Counter[bool] = Counter()
    for place in range(len(steps)):
        out = tmp_path / str(place)
        shutil.copytree(tmp_path / "old", out)
        status = server("sweep", out, place, strike)
        assert status == -9 if strike == "SIGKILL" else status in (0, 1), steps[place]
        found = contents(out)
        is_new = found["head.safetensors"] == new["head.safetensors"]
        heads[is_new] += 1
        for name in OF_THE_HEAD:
            assert found.get(name) in {None, new.get(name), None if is_new else old[name]}, (
                f"{strike} {steps[place]}: {name}"
            )
        assert found["mine.onnx"] == old["mine.onnx"]
        if is_new and found["config.json"] == old["config.json"]:  # and that is said
            with pytest.raises(run_directory.OtherHeadError, match="expected a file of the head beside it"):
                run_directory.RunDirectory(out).read_settings(json.loads(new["config.json"])["head_sha256"])
        assert server("sweep", out) == 0
        assert contents(out) == new
        shutil.rmtree(out)
    assert len(heads) == 2


def below(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("strike", ["SIGKILL", "ENOSPC", "EIO"])
def test_a_triton_model_is_the_old_folder_or_the_whole_new_one(server, tmp_path, strike, request):
    """Killed between two renames it is the old one under a hidden name, which the next run knows."""
    injector.write_triton(tmp_path, tmp_path / "old", seed=0)
    old = below(tmp_path / "old" / "catdog")
    shutil.copytree(tmp_path / "old", tmp_path / "whole")
    steps = server.steps("triton", tmp_path / "whole")
    new = below(tmp_path / "whole" / "catdog")
    assert old != new
    first, second = (place for place, step in enumerate(steps) if step == "before rename")
    struck = {*places(steps, request.config.getoption("--long")), first + 1, second}
    hidden = 0
    for place in sorted(struck):
        out = tmp_path / str(place)
        shutil.copytree(tmp_path / "old", out)
        status = server("triton", out, place, strike)
        assert status == -9 if strike == "SIGKILL" else status in (0, 1), steps[place]
        if (out / "catdog").exists():
            assert below(out / "catdog") in (old, new), f"{strike} {steps[place]}"
        else:
            hidden += 1
            (kept,) = out.glob(".catdog.*.old")
            assert below(kept) == old
        assert server("triton", out) == 0
        assert [path.name for path in out.iterdir()] == ["catdog"]
        assert below(out / "catdog") == new
        shutil.rmtree(out)
    assert hidden == (2 if strike == "SIGKILL" else 0)
    figures = {"steps": len(steps), "faults": len(struck), "old or new": len(struck), "bytes lost": 0}
    record(f"triton {strike}", figures, request.config.getoption("--long"))
