"""Real processes: signals, a killed one among several, jax.distributed on this machine, the launch examples."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers import blocks
from helpers.figures import record

from catdog_jax import cli, config
from catdog_jax.backbone import weights
from catdog_jax.commands import extract as extract_command
from catdog_jax.features import extractor

LAUNCH = Path(__file__).parents[2] / "scripts" / "launch"
# The command line with a stand-in for the network, which tells of its fifth batch of six and then
# does what argv[1] says.
VICTIM = """
import os, signal, sys, time
from helpers import blocks
from catdog_jax import cli
from catdog_jax.features import extractor

class Slow(blocks.Blocks):
    batch_size = 1
    def dispatch(self, photos):
        if sys.argv[1] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[1] == "wait" and Slow.batches == 4:
            print("computing", flush=True)
            time.sleep(60)
        Slow.batches += 1
        return super().dispatch(photos)

Slow.batches = 0
blocks.stand_in()
extractor.Extractor = Slow
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a shell's background inherits that it is ignored
sys.exit(cli.main(sys.argv[2:]))
"""


def long(value: object) -> object:
    """A case of the long form alone."""
    return pytest.param(value, marks=pytest.mark.long)


def start(does: str, photos: Path, out: Path, *options: str) -> subprocess.Popen:
    paths = os.environ["PYTHONPATH"]
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    arguments = ["extract", "--data", str(photos), "--out", str(out), "--shard-size", "1", "--workers", "1", *options]
    return subprocess.Popen(
        [sys.executable, "-c", VICTIM, does, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"},
    )


def ended(process: subprocess.Popen) -> tuple[int, str]:
    """The exit status and stderr, in one line without frames; nobody may hang."""
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, " ".join(errors.split())


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.startswith(".")}


@pytest.fixture
def finish(small_photos, monkeypatch) -> Callable[[Path], dict[str, bytes]]:
    """Extracts what is missing, here, and returns the bytes."""
    monkeypatch.setattr(extractor, "Extractor", blocks.Blocks)
    monkeypatch.setattr(weights, "load", lambda *_: weights.Weights({}, "torch", "0" * 64, "stand-in"))

    def extract(out: Path) -> dict[str, bytes]:
        extract_command.extract(config.ExtractConfig(data=str(small_photos), out=out, shard_size=1, workers=1))
        return contents(out)

    return extract


@pytest.fixture
def whole(finish, tmp_path_factory) -> dict[str, bytes]:
    """The bytes of a single process."""
    return finish(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    ("number", "decode_in"), [(signal.SIGINT, "threads"), (signal.SIGTERM, "threads"), (signal.SIGINT, "processes")]
)
def test_an_interrupted_extraction_says_how_to_go_on_and_does(small_photos, finish, whole, tmp_path, number, decode_in):
    process = start("wait", small_photos, tmp_path, "--decode-in", decode_in)
    assert process.stdout.readline() == "computing\n"
    process.send_signal(number)
    status, errors = ended(process)
    assert status == 130
    assert (
        "interrupted. The shards that were finished are kept: run the same command again to go on from there." in errors
    )
    assert "Traceback" not in errors
    assert 0 < len(contents(tmp_path)) < len(whole)
    assert finish(tmp_path) == whole


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def together(does: list[str], photos: Path, out: Path, *options: str) -> list[tuple[int, str]]:
    shares = [("--shard-index", str(index), "--num-shards", str(len(does)), *options) for index in range(len(does))]
    started = [start(one, photos, out, *share) for one, share in zip(does, shares, strict=True)]
    return [ended(process) for process in started]


@pytest.mark.parametrize("count", [2, long(3)])
def test_the_processes_of_jax_distributed_give_the_bytes_of_one(small_photos, whole, tmp_path, count):
    results = together(["work"] * count, small_photos, tmp_path, "--distributed", f"127.0.0.1:{free_port()}")
    assert [status for status, _ in results] == [0] * count, results
    assert all(f"process {index} of {count}" in errors for index, (_, errors) in enumerate(results))
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("distributed", [long(False), True])
def test_a_killed_process_takes_no_other_with_it(small_photos, whole, tmp_path, distributed, request):
    options = ("--distributed", f"127.0.0.1:{free_port()}") if distributed else ()
    results = together(["work", "die", "work"], small_photos, tmp_path, *options)
    assert [status for status, _ in results] == [0, -signal.SIGKILL, 0], results
    assert any("2 of 6 shards are missing" in errors for _, errors in results)
    assert "manifest.json" not in contents(tmp_path)
    results = together(["work"] * 2, small_photos, tmp_path)
    assert [status for status, _ in results] == [0, 0], results
    assert contents(tmp_path) == whole
    figures = {"processes": 3, "killed": 1, "finished all the same": 2, "bytes lost": 0}
    record("processes, jax.distributed" if distributed else "processes", figures, request.config.getoption("--long"))


def test_a_cluster_that_is_none_is_told(small_photos, tmp_path):
    status, errors = ended(start("work", small_photos, tmp_path, "--distributed", "auto"))
    assert status == 1
    assert re.search(
        r"error: --distributed auto: expected the other processes, found: .+ Check the launcher, or name", errors
    )
    status, errors = ended(start("work", small_photos, tmp_path, "--distributed", "127.0.0.1:1"))
    assert status == 2
    assert "--distributed 127.0.0.1:1: expected --shard-index and --num-shards of 2 or more, found 1." in errors


def commands() -> dict[str, str]:
    job = yaml.safe_load((LAUNCH / "kubernetes-job.yaml").read_text())
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == 4  # what the command says as well
    (container,) = job["spec"]["template"]["spec"]["containers"]
    found = {"kubernetes-job.yaml": container["args"][0]}
    for name in ("slurm.sbatch", "tpu-pod.sh"):
        script = (LAUNCH / name).read_text()
        assert subprocess.run(["bash", "-n", LAUNCH / name], check=False).returncode == 0
        found[name] = next(
            line for line in script.splitlines() if "catdog extract" in line and not line.startswith("#")
        )
    return found


@pytest.mark.parametrize("name", ["kubernetes-job.yaml", "slurm.sbatch", "tpu-pod.sh"])
def test_the_launch_examples_use_options_that_exist(name):
    words = shlex.split(commands()[name])
    if len(words) == 1:  # a command in quotes, for another shell
        words = shlex.split(words[0])
    numbers = {"$SLURM_PROCID": "3", "$JOB_COMPLETION_INDEX": "3", "$SLURM_NTASKS": "4"}
    stage, settings = cli._parse([numbers.get(word, word) for word in words[words.index("catdog") + 1 :]])
    assert stage == "extract"
    assert isinstance(settings, config.ExtractConfig)
    assert (
        (settings.shard_index, settings.num_shards) == (3, 4)
        if name != "tpu-pod.sh"
        else settings.distributed == "auto"
    )
