"""Several processes on one cache: each its share, in any number, and never two on the same one."""

import os
import subprocess
import sys

import pytest
from helpers.blocks import Blocks

from catdog_jax.backbone import weights
from catdog_jax.commands import extract as extract_command
from catdog_jax.config import ExtractConfig
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.features import extractor, locks
from catdog_jax.photos import decoding, sources


@pytest.fixture
def extract(small_photos, monkeypatch):
    monkeypatch.setattr(extractor, "Extractor", Blocks)
    monkeypatch.setattr(weights, "load", lambda *_: weights.Weights({}, "torch", "0" * 64, "stand-in"))
    return lambda out, **options: extract_command.extract(
        ExtractConfig(str(small_photos), out, shard_size=1, **options)
    )


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("count", [2, 3])
def test_shares_in_any_order_give_the_bytes_of_one_process(extract, tmp_path, count):
    extract(tmp_path / "whole")
    for index in reversed(range(1, count)):
        assert extract(tmp_path / "shared", shard_index=index, num_shards=count) is None
    assert not (tmp_path / "shared" / "manifest.json").exists()
    assert extract(tmp_path / "shared", num_shards=count) is not None
    assert contents(tmp_path / "shared") == contents(tmp_path / "whole")


def test_a_share_that_never_came_is_named_and_another_number_completes_it(extract, tmp_path, capsys):
    extract(tmp_path / "whole")
    assert extract(tmp_path / "shared", num_shards=3) is None
    assert "4 of 6 shards are missing: train-00001-of-00002" in capsys.readouterr().err
    assert extract(tmp_path / "shared") is not None
    assert contents(tmp_path / "shared") == contents(tmp_path / "whole")


def test_a_share_out_of_range_is_wrong_usage(extract, tmp_path):
    with pytest.raises(UsageError, match=r"--shard-index: expected 0 to --num-shards - 1, found 2 of 2"):
        extract(tmp_path / "out", shard_index=2, num_shards=2)


def test_a_second_extractor_is_told_who_is_at_work_and_the_dead_hold_nothing(extract, tmp_path):
    code = (
        f"from pathlib import Path\nfrom catdog_jax.features import locks\nwith locks.claim(Path({str(tmp_path)!r})):\n"
    )
    code += "    print('held', flush=True)\n    input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(CatdogError, match=rf"no other process extracts into, found process {holder.pid} on "):
            extract(tmp_path)
        holder.kill()
    (tmp_path / ".train-00000-of-00002.features.npy.elsewhere.7.tmp").write_bytes(b"half")
    assert extract(tmp_path) is not None
    assert not list(tmp_path.glob(".*"))


def test_the_same_share_twice_is_refused(tmp_path):
    with locks.claim(tmp_path, 0, 2), locks.claim(tmp_path, 1, 2):  # others go together
        with pytest.raises(CatdogError, match="found process"), locks.claim(tmp_path, 0, 2):
            pass
        with pytest.raises(CatdogError, match="found process"), locks.claim(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


def test_a_failing_disk_is_no_undecodable_photo(extract, tmp_path, monkeypatch):
    def fail(_):
        raise decoding.UnreadableError("cannot be read: Input/output error")

    monkeypatch.setattr(sources, "_BEFORE_RETRY", 0)
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "read_photo", fail)
        with pytest.raises(CatdogError, match=r"Input/output error, twice\. Mend the disk"):
            extract(tmp_path / "out")
    found = extract(tmp_path / "out")
    assert not any(found.skipped(split) for split in sources.SPLITS)
