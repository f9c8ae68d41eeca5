"""The server's container and its systemd unit, as far as a machine without either can tell: parsed, and their commands run."""

import ast
import configparser
import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.models import tiny_model
from helpers.serving import ask, photo, started

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from catdog_jax import __version__, cli
from catdog_jax.config import ServeConfig

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "scripts" / "launch"
UNIT = LAUNCH / "catdog.service"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("launch") / "model.onnx"
    path.write_bytes(tiny_model().SerializeToString())
    return path


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of the Dockerfile, those before the first FROM left out, a list for each stage."""
    text = re.sub(r"^#.*\n", "", (LAUNCH / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line.split(maxsplit=1) for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    found: list[list[tuple[str, str]]] = []
    for name, rest in lines:
        assert name in {
            "ARG",
            "FROM",
            "WORKDIR",
            "COPY",
            "RUN",
            "ENV",
            "USER",
            "EXPOSE",
            "HEALTHCHECK",
            "ENTRYPOINT",
            "CMD",
        }
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, rest))
    return found


def last(name: str) -> str:
    return dict(stages()[-1])[name]


def test_the_image_is_slim_and_not_root():
    build, final = stages()
    assert [dict(stage)["FROM"].split()[0] for stage in (build, final)] == ["python:${PYTHON}-slim"] * 2
    assert last("USER") == "65532:65532", "a number, so that Kubernetes can see that it is not root"
    assert [name for name, _ in final].index("USER") < [name for name, _ in final].index("ENTRYPOINT")
    assert "RUN" not in dict(final), "what builds stays behind"
    settings = dict(word.split("=", 1) for word in last("ENV").split())
    assert settings["PYTHONDONTWRITEBYTECODE"] == settings["ORT_DISABLE_TELEMETRY"] == "1"


def test_the_image_is_made_of_files_that_exist_and_of_tested_versions():
    build = stages()[0]
    copied = [name for kind, rest in build if kind == "COPY" for name in rest.split()[:-1]]
    wheel = f"dist/catdog_jax-{__version__}-py3-none-any.whl"  # as `make wheel` calls it
    assert [name for name in copied if not (ROOT / name).exists() and not fnmatch.fnmatch(wheel, name)] == []
    ignored = (LAUNCH / "Dockerfile.dockerignore").read_text().split("*\n", 1)[1].splitlines()
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == {*copied}
    assert '--constraint constraints.txt "$(echo catdog_jax-*.whl)[serve]"' in dict(build)["RUN"]
    extra = re.search(r"^serve = (\[.*\])$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    tested = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    known = {name.lower().replace("_", "-") for name in tested}
    assert {re.split("[>=]", requirement)[0] for requirement in ast.literal_eval(extra[1])} <= known


def test_the_images_command_is_one_of_catdogs():
    words = [*json.loads(last("ENTRYPOINT")), *json.loads(last("CMD"))]
    assert words[0] == "catdog"
    stage, settings = cli._parse(words[1:])
    assert (stage, settings.host, str(settings.port)) == ("serve", "0.0.0.0", last("EXPOSE"))
    assert settings.model is None, "that of /srv/run, where it is mounted, else the published one"
    assert last("WORKDIR") == "/srv"


def test_the_images_health_check_tells_a_server_from_none(model):
    options, _, command = last("HEALTHCHECK").partition("CMD ")
    assert all(option in options for option in ("--interval=", "--timeout=", "--start-period=", "--retries="))
    program, *rest = json.loads(command)
    assert program == "python"

    def healthy(address: str) -> bool:
        there = [word.replace("http://127.0.0.1:8000", address) for word in rest]
        assert there != rest
        return subprocess.run([sys.executable, *there], capture_output=True, timeout=30).returncode == 0

    with started(model) as url:
        assert healthy(url)
    assert not healthy(url), "the server has ended"


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=True, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser


def test_the_unit_runs_a_command_of_catdogs_that_ends_well(model, tmp_path):
    service = unit()["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "catdog"
    stage, settings = cli._parse(words)
    assert (stage, settings.host) == ("serve", "127.0.0.1")
    defaults = ServeConfig()
    assert int(service["TimeoutStopSec"]) > defaults.body_timeout + defaults.request_timeout
    # The very command, with another port and model, in a home that cannot be written
    words[words.index("--port") + 1], words[words.index("--model") + 1] = "0", str(model)
    environment = {"PYTHONPATH": os.environ["PYTHONPATH"], "HOME": "/nonexistent", "COLUMNS": "500"}
    environment |= dict(word.split("=", 1) for word in service["Environment"].split())
    log = tmp_path / "log"
    with log.open("wb") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-m", "catdog_jax", *words],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd="/",
        )
        try:
            url = process.stderr.readline().split()[-1].rstrip("/")
            assert ask(f"{url}/predict", photo(140))[0] == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, "Restart=on-failure leaves a server alone that was told to stop"
        finally:
            process.kill()
            process.communicate()
    (line,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert (line["client"], line["path"], line["status"], line["photos"]) == ("127.0.0.1", "/predict", 200, 1)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_unit_and_finds_it_confined(tmp_path):
    program = shlex.split(unit()["Service"]["ExecStart"])[0]
    path = tmp_path / "catdog.service"
    path.write_text(UNIT.read_text().replace(program, shutil.which("true")))  # theirs is not installed here
    environment = {**os.environ, "SYSTEMD_LOG_LEVEL": "warning"}
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, env=environment)
    complaints = [line for line in done.stderr.splitlines() if "catdog.service" in line]
    assert (done.returncode, complaints) == (0, [])
    confined = ["systemd-analyze", "security", "--offline=true", "--threshold=20", path]
    done = subprocess.run(confined, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
