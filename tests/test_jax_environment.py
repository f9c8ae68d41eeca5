"""What JAX is told before it starts: sums that are right, devices that are there."""

import os
import subprocess
import sys
import types

import jax
import pytest

from catdog_jax import cli, config, jax_environment
from catdog_jax.errors import UsageError

FLAG = "--xla_cpu_experimental_ynn_fusion_type=-reduce"


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=kept | environment, check=False
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, FLAG),
        ("", FLAG),
        ("--xla_cpu_enable_fast_math=false", f"--xla_cpu_enable_fast_math=false {FLAG}"),
        ("--xla_cpu_experimental_ynn_fusion_type=", "--xla_cpu_experimental_ynn_fusion_type="),  # the user's choice
    ],
)
def test_the_flag_joins_those_of_the_user(before, after, monkeypatch):
    monkeypatch.setattr(jax_environment, "_started", lambda: False)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if before is not None:
        monkeypatch.setenv("XLA_FLAGS", before)
    jax_environment.keep_sums_right()
    jax_environment.keep_sums_right()  # twice is once
    assert os.environ["XLA_FLAGS"] == after


def test_a_jaxlib_without_the_flag_is_left_alone(monkeypatch, tmp_path):
    """XLA would end the process; so would a value that it does not know."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    (tmp_path / "jaxlib").mkdir()
    (tmp_path / "jaxlib" / "__init__.py").touch()
    library = tmp_path / "jaxlib" / "libjax_common.so"
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "jaxlib")
    flag, value = b"\0xla_cpu_experimental_ynn_fusion_type\0", b"LIBRARY_FUSION_TYPE_REDUCE"
    for content in (b"other", flag, value, flag[:-1] + b"s\0" + value):
        library.write_bytes(content)
        jax_environment.keep_sums_right()
        assert "XLA_FLAGS" not in os.environ
    library.write_bytes(flag + value)
    monkeypatch.setattr(jax_environment, "_started", lambda: False)
    jax_environment.keep_sums_right()
    assert os.environ["XLA_FLAGS"] == FLAG


def test_without_jax_nothing_is_set(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.delitem(sys.modules, "jaxlib")
    monkeypatch.setattr(sys, "path", [])
    jax_environment.keep_sums_right()
    assert "XLA_FLAGS" not in os.environ


@pytest.mark.parametrize(
    ("flags", "started", "words"),
    [("", True, "JAX had started before catdog_jax was imported"), ("flags.txt", False, "found the name of a file")],
)
def test_what_cannot_be_set_is_told(flags, started, words, monkeypatch):
    monkeypatch.setattr(jax_environment, "_started", lambda: started)
    monkeypatch.setenv("XLA_FLAGS", flags)
    with pytest.warns(RuntimeWarning, match=words):
        jax_environment.keep_sums_right()
    assert os.environ["XLA_FLAGS"] == flags


def test_a_library_user_has_right_sums_too():
    """JAX imported first, then a module of the package, then JAX started: the flag comes in time."""
    code = "import jax\nimport os\nfrom catdog_jax import jax_environment\nfrom catdog_jax.heads import head\n"
    code += "print(os.environ['XLA_FLAGS'])\n"
    code += "print(jax_environment._started())\njax.devices()\nprint(jax_environment._started())"
    assert python(code).stdout.split("\n")[:3] == [FLAG, "False", "True"]


def test_programs_have_a_device_a_core_and_keep_what_the_user_set(monkeypatch):
    monkeypatch.setattr(config, "cores", lambda: 64)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "set to be taken back")
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES")
    jax_environment.prepare()
    assert (os.environ["JAX_NUM_CPU_DEVICES"], os.environ["JAX_COMPILATION_CACHE_DIR"]) == ("16", "mine")


@pytest.mark.parametrize(
    ("asked", "words"),
    [("cuda", "run: pip install 'catdog-jax[cuda13]'"), ("bogus", "or name one of cuda, gpu, tpu, cpu")],
)
def test_a_platform_that_is_not_there_is_one_line(asked, words):
    ended = python("from catdog_jax.cli import main; raise SystemExit(main(['doctor']))", JAX_PLATFORMS=asked)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: JAX_PLATFORMS={asked}: expected such a device, found cpu alone")
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--data", "demo"],
        ["extract"],
        ["train"],
        ["evaluate"],
        ["export"],
        ["doctor"],
        ["audit", "--features", "nowhere"],
    ],
    ids=lambda command: command[0],
)
def test_every_stage_that_uses_jax_asks_for_its_devices_first(command, capsys, tmp_path, monkeypatch):
    def refuse():
        raise UsageError("JAX_PLATFORMS=tpu: expected such a device, found cpu alone.")

    monkeypatch.setattr(jax_environment, "require_devices", refuse)
    monkeypatch.chdir(tmp_path)
    assert cli.main(command) == 2
    assert "JAX_PLATFORMS=tpu: expected such a device" in capsys.readouterr().err


def test_a_fault_of_jax_itself_is_not_the_platforms(monkeypatch):
    def fail():
        raise RuntimeError("broken driver")

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setattr(jax, "config", types.SimpleNamespace(values={"jax_platforms": None}))
    with pytest.raises(RuntimeError, match="broken driver"):
        jax_environment.require_devices()
