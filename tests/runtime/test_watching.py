"""What arrives in a folder: new photos, once they are complete."""

import os
import signal
import threading
from pathlib import Path

import pytest
from helpers.models import save_grey

from catdog_jax.runtime.watching import Watch, until_interrupted


def test_a_photo_is_taken_once_it_is_the_same_in_two_looks(tmp_path: Path) -> None:
    watch = Watch([tmp_path])
    one = save_grey(tmp_path / "1.png", 9)
    assert watch.look() == []
    assert watch.look() == [one]
    assert watch.look() == []
    (tmp_path / "sub").mkdir()
    data = one.read_bytes()
    two = tmp_path / "sub" / "2.png"
    for i in range(3):  # a copy that is slow
        two.write_bytes(data[: 20 * (i + 1)])
        os.utime(two, ns=(i, i))
        assert watch.look() == []
    assert watch.look() == [two]
    two.write_bytes(data)  # it had only stalled
    os.utime(two, ns=(9, 9))
    assert [watch.look(), watch.look(), watch.look()] == [[], [two], []]
    one.unlink()
    assert watch.look() == []
    save_grey(one, 7)
    assert [watch.look(), watch.look()] == [[], [one]]


def test_what_is_no_photo_or_a_result_is_not_taken(tmp_path: Path) -> None:
    for name in (".hidden.png", "half.png.part", "notes.txt", "sorted/cats/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(save_grey(tmp_path / ".x", 9).read_bytes())
    watch = Watch([tmp_path], [tmp_path / "sorted"])
    assert [watch.look(), watch.look()] == [[], []]


def test_a_folder_that_is_away_is_said_once_and_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    watch = Watch([folder])
    folder.rmdir()
    assert [watch.look(), watch.look()] == [[], []]
    assert capsys.readouterr().err.count("Still watching.") == 1
    folder.mkdir()
    one = save_grey(folder / "1.png", 9)
    assert [watch.look(), watch.look()] == [[], [one]]


def test_ctrl_c_asks_and_the_second_one_ends() -> None:
    before = signal.getsignal(signal.SIGINT)
    with until_interrupted() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) == before
    told: list[bool] = []

    def elsewhere() -> None:
        with until_interrupted() as stop:
            told.append(stop.is_set())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert told == [False]
