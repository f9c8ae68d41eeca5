"""Several models on the same photos: each sees every photo once, in the same batches, and is timed by itself."""

import time

import numpy as np
import pytest
from helpers.models import save_grey

from catdog_jax.photos import decoding
from catdog_jax.photos.recipe import DEFAULT, FIRST, DecodingRecipe
from catdog_jax.photos.sources import load
from catdog_jax.runtime import side_by_side


def test_models_take_turns_and_are_timed_each_by_itself():
    photos = [([np.full((224, 224, 3), i, np.uint8)] * 2, i % 2) for i in range(19)]
    calls = []

    def model(name, seconds):
        def answer(batch):
            calls.append((name, len(batch)))
            time.sleep(seconds)
            second = batch[:, 0, 0, 0].astype(np.float32) / 100 + (name == "slow")
            return np.stack([1 - second, second], axis=1)

        return answer

    turns = side_by_side.in_turns([model("fast", 0.0), model("slow", 0.03)], iter(photos), 19, "compare")
    assert calls == [(name, n) for n in (8, 8, 3) for name in ("fast", "slow")]
    assert turns.labels.tolist() == [i % 2 for i in range(19)]
    for offset, row in enumerate(turns.probabilities):
        np.testing.assert_allclose(row, np.arange(19) / 100 + offset, rtol=1e-6)
        assert row.dtype == np.float64
    assert turns.seconds[1] >= 0.09 > turns.seconds[0]


def test_no_photo_is_no_row():
    turns = side_by_side.in_turns([lambda batch: pytest.fail("asked")], iter(()), 0, "compare")
    assert [len(side) for side in (turns.labels, *turns.probabilities)] == [0, 0]


def test_what_cannot_be_decoded_is_left_out_with_its_reason(tmp_path):
    for split in ("train", "validation", "test"):
        for name, grey in (("cats", 90), ("dogs", 160)):
            (tmp_path / split / name).mkdir(parents=True)
            save_grey(tmp_path / split / name / "0.png", grey)
    (tmp_path / "test" / "dogs" / "broken.png").write_bytes(b"nothing")
    left_out: dict[str, str] = {}
    found = list(side_by_side.readable(load(str(tmp_path)).split("test"), left_out, [FIRST]))
    assert sorted((int(pixels[0, 0, 0]), label) for (pixels,), label in found) == [(90, 0), (160, 1)]
    assert list(left_out) == ["test/dogs/broken.png"]
    assert "unknown content" in left_out["test/dogs/broken.png"]


def test_each_model_gets_its_own_pixels(tmp_path, monkeypatch):
    for split in ("train", "validation", "test"):
        for name, grey in (("cats", 90), ("dogs", 160)):
            (tmp_path / split / name).mkdir(parents=True)
            save_grey(tmp_path / split / name / "0.png", grey)
    asked, decode = [], decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda data, recipe: asked.append(recipe) or decode(data, recipe))
    large = DecodingRecipe(size=320)
    records = load(str(tmp_path)).split("test")
    found = list(side_by_side.readable(records, {}, [FIRST, large, FIRST]))
    assert [[pixels.shape[0] for pixels in seen] for seen, _ in found] == [[224, 320, 224]] * 2
    assert len(asked) == 4, "once a recipe and photo"
    turns = side_by_side.in_turns(
        [lambda batch: np.full((len(batch), 2), batch.shape[1])] * 3, iter(found), len(found), "compare"
    )
    assert [row.tolist() for row in turns.probabilities] == [[224, 224], [320, 320], [224, 224]]
    assert DEFAULT not in asked
