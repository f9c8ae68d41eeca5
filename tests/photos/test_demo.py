import hashlib
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding
from catdog_jax.photos.demo import animals, camera, drawing, scenes
from catdog_jax.photos.recipe import DEFAULT

FEW = {"train": 2, "validation": 1, "test": 1}
ONE = {"train": 1, "validation": 0, "test": 1}


def pixels(kind, seed, size=96):
    return np.asarray(drawing.draw(kind, np.random.default_rng(seed), size))


def files(root: Path) -> dict[str, str]:
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in root.rglob("*")
        if p.is_file()
    }


@pytest.fixture
def small_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(drawing, "COUNTS", ONE)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    drawing.draw_dataset(root, seed=5, counts=FEW)
    return root


@pytest.mark.parametrize("kind", drawing.KINDS)
def test_a_picture_follows_from_its_generator_alone(kind):
    np.testing.assert_array_equal(pixels(kind, 1), pixels(kind, 1))
    assert np.abs(pixels(kind, 1).astype(int) - pixels(kind, 2)).mean() > 5


def test_the_kinds_differ_from_the_same_seed():
    assert np.abs(pixels("cat", 3).astype(int) - pixels("dog", 3)).mean() > 5


@pytest.mark.parametrize("size", [64, 224])
def test_pictures_are_rgb_of_the_size_asked_for(size):
    picture = drawing.draw("dog", np.random.default_rng(0), size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))
    assert np.asarray(picture).std() > 5


def test_every_breed_can_be_drawn_in_every_pose(monkeypatch):
    for breed in animals.BREEDS:
        monkeypatch.setattr(scenes, "BREEDS", (breed,))
        for pose in set(animals.POSES):
            monkeypatch.setattr(camera, "POSES", (pose,))
            assert pixels(breed.kind, 0, 48).std() > 5, (breed.name, pose)


def test_the_nearer_of_two_balls_hides_the_other():
    centres = np.array([(10, 10, 0), (13, 10, 20)], np.float32)
    axes = np.array([np.diag((6, 6, 6)), np.diag((3, 3, 3))], np.float32)
    depth, part = camera.cast(centres, axes, (24, 20))
    y, x = np.mgrid[:20, :24]
    large, small = (x - 10) ** 2 + (y - 10) ** 2 < 36, (x - 13) ** 2 + (y - 10) ** 2 < 9
    np.testing.assert_array_equal(part, np.where(small, 1, np.where(large, 0, -1)))
    assert depth[10, 13] == pytest.approx(23)
    assert depth[10, 7] == pytest.approx(np.sqrt(36 - 9))


def test_the_layout_is_the_one_that_folders_of_photos_have(drawn):
    names = {"train": ("000", "001"), "validation": ("000",), "test": ("000",)}
    expected = {f"{s}/{k}s/{k}.{n}.jpg" for s, numbers in names.items() for k in drawing.KINDS for n in numbers}
    assert set(files(drawn)) == expected
    assert sum(drawing.COUNTS.values()) * len(drawing.KINDS) == 280


def test_files_are_jpegs_of_varied_sizes_that_decode(drawn):
    sizes = set()
    for path in drawn.rglob("*.jpg"):
        with Image.open(path) as picture:
            assert picture.format == "JPEG"
            assert all(200 <= side <= 320 for side in picture.size)
            sizes.add(picture.size)
        assert decoding.decode(path.read_bytes(), DEFAULT).shape == (224, 224, 3)
    assert len(sizes) > 4


def test_counts_do_not_change_the_pictures_and_the_seed_does(drawn, tmp_path):
    drawing.draw_dataset(tmp_path / "more", seed=5, counts={"test": 2, "validation": 1})
    before, after = files(drawn), files(tmp_path / "more")
    shared = before.keys() & after.keys()
    assert len(shared) == 4
    assert all(before[name] == after[name] for name in shared)
    drawing.draw_dataset(tmp_path / "other", seed=6, counts={"test": 1})
    assert not set(files(tmp_path / "other").values()) & set(before.values())
    assert len(set(before.values())) == len(before)


def test_colour_and_composition_do_not_tell_the_class():
    def describe(kind, seed):
        thumbnail = drawing.draw(kind, np.random.default_rng([77, seed]), 48).resize((8, 8), Image.Resampling.BOX)
        colours = np.asarray(thumbnail, float).reshape(64, 3)
        return np.concatenate([colours.mean(0), colours.std(0), colours.ravel()])

    labels = np.arange(180) % 2
    rows = np.array([describe(drawing.KINDS[label], seed) for seed, label in enumerate(labels)])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500)).fit(rows[:110], labels[:110])
    assert classifier.score(rows[110:], labels[110:]) < 0.75
    colours = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows[:110, :6], labels[:110])
    assert colours.score(rows[110:, :6], labels[110:]) < 0.70


def test_the_default_set_is_drawn_once(small_cache, monkeypatch):
    root = drawing.draw_once()
    assert root == small_cache / f"demo-v{drawing.VERSION}"
    assert len(files(root)) == 4
    monkeypatch.setattr(drawing, "draw_dataset", lambda *args, **kwargs: pytest.fail("drawn again"))
    assert drawing.draw_once() == root


def test_a_killed_run_leaves_no_half_set(small_cache, monkeypatch):
    scene, left = drawing.scene, [None] * 2

    def interrupted(*args):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return scene(*args)

    monkeypatch.setattr(drawing, "scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        drawing.draw_once()
    assert list(small_cache.iterdir()) == []
    monkeypatch.setattr(drawing, "scene", scene)
    assert len(files(drawing.draw_once())) == 4


def test_a_run_that_loses_the_race_uses_the_winners_set(small_cache, monkeypatch):
    draw_dataset, root = drawing.draw_dataset, small_cache / f"demo-v{drawing.VERSION}"

    def overtaken(temporary, **options):
        draw_dataset(temporary, **options)
        draw_dataset(root, seed=1, counts={"test": 1})  # the other process finishes first

    monkeypatch.setattr(drawing, "draw_dataset", overtaken)
    assert drawing.draw_once() == root
    assert len(files(root)) == 2
    assert [path.name for path in small_cache.iterdir()] == [root.name]


def draw_in_a_process(start, cache, results):
    import os

    os.environ["CATDOG_CACHE"] = cache
    drawing.COUNTS = ONE
    start.wait()
    results.put(str(drawing.draw_once()))


def test_two_processes_at_once_both_succeed(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=draw_in_a_process, args=(start, str(tmp_path), results)) for _ in range(2)]
    for process in processes:
        process.start()
    roots = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert roots == {str(tmp_path / f"demo-v{drawing.VERSION}")}
    assert [path.name for path in tmp_path.iterdir()] == [f"demo-v{drawing.VERSION}"]
    assert len(files(tmp_path)) == 4


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "file"))
    with pytest.raises(CatdogError, match=r"file.demo-v\d+: cannot be drawn: .*CATDOG_CACHE"):
        drawing.draw_once()


def test_drawing_needs_no_jax():
    code = "import sys; from catdog_jax.photos.demo import drawing; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
