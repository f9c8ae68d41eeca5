"""The course of a training in log.jsonl and event files, read back by Google's protobuf and a checksum by bits."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from helpers.caches import make_cache

import catdog_jax as cd
from catdog_jax.cli import main
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.heads import event_files, training_log
from catdog_jax.heads.head import Epoch
from catdog_jax.heads.training_log import TrainingLog

pytestmark = pytest.mark.lenient_types  # optax' Adam

X = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)
PAIR = X, X[:, 0] > 0
FIELDS = {  # of tensorboard/compat/proto/{event,summary}.proto: name, number, type, repeated
    "Event": [("wall_time", 1, 1, 1), ("step", 2, 3, 1), ("file_version", 3, 9, 1), ("summary", 5, "Summary", 1)],
    "Summary": [("value", 1, "Value", 3)],
    "Value": [("tag", 1, 9, 1), ("simple_value", 2, 2, 1), ("metadata", 9, "Metadata", 1)],
    "Metadata": [("plugin_data", 1, "Plugin", 1)],
    "Plugin": [("plugin_name", 1, 9, 1), ("content", 2, 12, 1)],
}


def event_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="t", syntax="proto3")
    for name, fields in FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind, label in fields:
            of = {"type": 11, "type_name": f".t.{kind}"} if isinstance(kind, str) else {"type": kind}
            message.field.add(name=field, number=number, label=label, **of)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Event"))


EVENT = event_class()


def crc32c(data: bytes) -> int:
    """By bits, as RFC 3720 has it, and masked as TFRecord has it."""
    value = 0xFFFFFFFF
    for bit in (byte >> place & 1 for byte in data for place in range(8)):
        value = value >> 1 ^ (0x82F63B78 if (value ^ bit) & 1 else 0)
    value ^= 0xFFFFFFFF
    return (((value >> 15) | (value << 17) & 0xFFFFFFFF) + 0xA282EAD8) % 2**32


def events(folder: Path) -> list[Any]:
    (path,) = folder.glob("events.out.tfevents.*")
    data, place, found = path.read_bytes(), 0, []
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        body = data[place + 12 : place + 12 + length]
        assert struct.unpack_from("<I", data, place + 8)[0] == crc32c(data[place : place + 8])
        assert struct.unpack_from("<I", data, place + 12 + length)[0] == crc32c(body)
        found.append(EVENT.FromString(body))
        place += 16 + length
    assert found[0].file_version == "brain.Event:2"
    return found[1:]


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events(folder):
        for value in event.summary.value:
            if not value.HasField("metadata"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def plugins(folder: Path) -> list[str]:
    values = [value for event in events(folder) for value in event.summary.value if value.HasField("metadata")]
    assert all(value.metadata.plugin_data.plugin_name == "hparams" for value in values)
    return [value.tag for value in values]


def test_the_checksum_is_that_of_the_rfc() -> None:
    masked = ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32  # of "123456789"
    assert event_files.checksum(b"123456789") == crc32c(b"123456789") == masked & 0xFFFFFFFF


def test_every_epoch_is_in_both_logs(tmp_path: Path) -> None:
    fitted = cd.train(PAIR, hidden=(4,), epochs=3, log_dir=tmp_path)
    start, *epochs, trial = lines(tmp_path)
    assert (start["event"], start["seed"], start["trials"], start["recipe"]["hidden"]) == ("start", 0, 1, [4])
    assert [Epoch(*(line[name] for name in Epoch._fields)) for line in epochs] == [*fitted.history]
    assert {line["trial"] for line in epochs} == {1}
    assert (trial["event"], trial["best"]) == ("trial", fitted.best._asdict())  # type: ignore[union-attr]
    assert all(line["time"] > 1.7e9 for line in (start, *epochs, trial))
    found = curves(tmp_path)
    for tag, name in (
        ("log_loss/train", "train_loss"),
        ("log_loss/validation", "validation_loss"),
        ("accuracy/validation", "validation_accuracy"),
        ("learning_rate", "learning_rate"),
    ):
        expected = [(epoch.epoch, float(np.float32(getattr(epoch, name)))) for epoch in fitted.history]
        assert found[tag] == expected
    assert plugins(tmp_path) == [
        f"_hparams_/{name}" for name in ("experiment", "session_start_info", "session_end_info")
    ]


def test_a_sweep_is_a_run_a_trial(tmp_path: Path) -> None:
    fitted = cd.train(PAIR, sweep=3, epochs=2, log_dir=tmp_path)
    assert plugins(tmp_path) == ["_hparams_/experiment"]
    folders = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert folders == ["trial-001", "trial-002", "trial-003"]
    trials = {line["trial"]: line for line in lines(tmp_path) if line["event"] == "trial"}
    assert {json.dumps(line["best"]) for line in trials.values()} == {
        json.dumps(t.best._asdict()) for t in fitted.sweep
    }
    for number, name in enumerate(folders, 1):
        assert curves(tmp_path / name)["log_loss/validation"][-1][0] == len(
            [line for line in lines(tmp_path) if line["event"] == "epoch" and line["trial"] == number]
        )
        assert plugins(tmp_path / name) == ["_hparams_/session_start_info", "_hparams_/session_end_info"]


def test_a_cross_validation_has_one_row(tmp_path: Path) -> None:
    fitted = cd.train(PAIR, folds=3, repeats=2, log_dir=tmp_path)
    start, epoch, trial = lines(tmp_path)
    assert (start["recipe"]["folds"], start["recipe"]["repeats"]) == (3, 2)
    assert epoch["validation_loss"] == trial["best"]["validation_loss"] == fitted.history[0].validation_loss


def test_the_log_is_there_while_the_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    epoch = TrainingLog.epoch

    def looked(self: TrainingLog, trial: int, row: Epoch) -> None:
        epoch(self, trial, row)
        seen.append((len(lines(tmp_path)), len(curves(tmp_path)["learning_rate"])))

    monkeypatch.setattr(TrainingLog, "epoch", looked)
    cd.train(PAIR, hidden=(4,), epochs=3, log_dir=tmp_path)
    assert seen == [(2, 1), (3, 2), (4, 3)]


def test_the_head_is_the_same_with_a_log(tmp_path: Path) -> None:
    with_log, without = (cd.train(PAIR, hidden=(4,), epochs=2, log_dir=where) for where in (tmp_path / "log", None))
    np.testing.assert_array_equal(with_log(X), without(X))


@pytest.mark.parametrize("there", ["log.jsonl", "events.out.tfevents.1.host.2", "trial-001"])
def test_another_log_is_not_mixed_with(there: str, tmp_path: Path) -> None:
    (tmp_path / there).touch()
    with pytest.raises(UsageError, match=rf"expected no log of another training, found {there}\. Name another folder"):
        TrainingLog(tmp_path)
    (tmp_path / there).rename(tmp_path / "notes.txt")
    TrainingLog(tmp_path)  # other files do not disturb


def test_a_place_that_cannot_be_written_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--log-dir .*file: expected a folder, found: Not a directory"):
        TrainingLog(tmp_path / "file")
    monkeypatch.setattr(training_log.TrainingLog, "begin", lambda *_: pytest.fail("it trains"))
    with pytest.raises(CatdogError, match=r"log\.jsonl: cannot be written: Not a directory\. Choose another log_dir"):
        cd.train(PAIR, hidden=(4,), epochs=1, log_dir=tmp_path / "file" / "below")
    with pytest.raises(UsageError, match="expected a folder of this machine, found a URL"):
        TrainingLog("s3://bucket/logs")


def test_a_disk_that_fills_up_ends_the_log_and_not_the_training(tmp_path: Path, capsys: Any) -> None:
    log = TrainingLog(tmp_path / "log")
    log.start(None, {"pool": "avg"}, 0)
    log.begin(1, {"pool": "avg"})
    (tmp_path / "log" / "log.jsonl").unlink()
    (tmp_path / "log" / "log.jsonl").mkdir()
    for number in (1, 2):
        log.epoch(number, Epoch(number, 0.1, 0.2, 0.3, 0.4))
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("the log ends here: Is a directory. The training goes on.") == 1


def test_what_is_not_finite_is_null_in_json(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path)
    log.start(None, {}, 0)
    log.begin(1, {})
    log.epoch(1, Epoch(1, 0.1, math.nan, math.inf, 0.4))
    assert (lines(tmp_path)[1]["train_loss"], lines(tmp_path)[1]["validation_loss"]) == (None, None)
    assert math.isnan(curves(tmp_path)["log_loss/train"][0][1])


def test_the_command_line_takes_the_folder_and_does_not_record_it(tmp_path: Path, capsys: Any) -> None:
    make_cache(tmp_path / "features")
    arguments = ["train", "--features", str(tmp_path / "features"), "--head", "linear", "--epochs", "2"]
    assert main([*arguments, "--out", str(tmp_path / "run"), "--log-dir", str(tmp_path / "log")]) == 0
    assert [line["event"] for line in lines(tmp_path / "log")] == ["start", "epoch", "epoch", "trial"]
    recorded = str(tmp_path / "run" / "config.json")
    assert main(["train", "--config", recorded, "--out", str(tmp_path / "again")]) == 0
    assert main([*arguments, "--out", str(tmp_path / "other"), "--log-dir", str(tmp_path / "log")]) == 2
    assert "expected no log of another training, found" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
