"""Copies: the banded search against brute force, and the whole way on drawn pictures."""

import io
import time

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from catdog_jax.auditing import duplicates, file_faults
from catdog_jax.auditing.evidence import Look
from catdog_jax.photos import hashes
from catdog_jax.photos.demo.animals import KINDS
from catdog_jax.photos.demo.drawing import draw
from catdog_jax.photos.sources import Record


def encode(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def look(photo: bytes, name: str = "a.jpg") -> Look:
    return file_faults.look(Record(name, 0, "train", len(photo), lambda: photo), ("cats", "dogs"))


@pytest.fixture(scope="module")
def drawn() -> list[Image.Image]:
    return [draw(KINDS[i % 2], np.random.default_rng(i), 200) for i in range(40)]


def test_the_hash_is_that_of_the_mirror_image_and_of_scipys_cosine_transform():
    from scipy.fft import dctn

    grey = np.random.default_rng(0).integers(0, 256, (5, hashes.GREY, hashes.GREY), np.uint8)
    bits = hashes.hashes(grey)
    np.testing.assert_array_equal(bits, hashes.hashes(grey[:, :, ::-1]))
    spectrum = dctn(grey.astype(np.float64), axes=(1, 2))[:, :16, :16:2].reshape(5, -1)  # its even columns
    order = sorted(range(128), key=lambda i: ((i // 8) ** 2 + (2 * (i % 8)) ** 2, i // 8, i % 8))[1 : hashes.BITS + 1]
    np.testing.assert_array_equal(bits, spectrum[:, order] > 0)


def test_candidates_are_those_of_brute_force():
    """All pairs that differ in fewer bits than there are bands, and none beyond the limit."""
    rng = np.random.default_rng(0)
    bits = rng.random((300, hashes.BITS)) < 0.5
    for i in range(100):  # near copies, of 0 to 29 other bits
        bits[200 + i] = bits[i] ^ np.isin(np.arange(hashes.BITS), rng.permutation(hashes.BITS)[: i % 30])
    distance = (bits[:, None] ^ bits[None]).sum(axis=2)
    width = hashes.BITS // hashes.BANDS
    banded = bits.reshape(300, hashes.BANDS, width)
    shares = (banded[:, None] == banded[None]).all(axis=3).any(axis=2)
    pairs = {(i, j) for i, j in np.argwhere(np.triu(shares & (distance <= hashes.MAX_DISTANCE), 1)).tolist()}
    assert len(pairs) > 50
    found = hashes.candidates(bits)
    assert set(map(tuple, found.tolist())) == pairs
    certain = {(i, j) for i, j in np.argwhere(np.triu(distance < hashes.BANDS, 1)).tolist()}
    assert certain <= pairs


def test_many_equal_hashes_cost_no_more_than_many_others():
    bits = np.zeros((20_000, hashes.BITS), bool)
    start = time.perf_counter()
    found = hashes.candidates(bits)
    assert time.perf_counter() - start < 5
    assert len(found) == 19_999
    assert (found[:, 0] == 0).all()


def test_copies_of_every_kind_are_found_and_nothing_else(drawn):
    copies = {
        "exact": (drawn[0], encode(drawn[0], "PNG")),
        "encoded": (drawn[1], encode(drawn[1], quality=40)),
        "resized": (drawn[2], encode(drawn[2].resize((90, 110)), quality=80)),
        "mirrored": (drawn[3], encode(drawn[3].transpose(Image.Transpose.FLIP_LEFT_RIGHT), quality=80)),
        "brighter": (drawn[4], encode(ImageEnhance.Brightness(drawn[4]).enhance(1.15), quality=85)),
    }
    looks = [look(encode(one, "PNG")) for one in drawn] + [look(copy) for _, copy in copies.values()]
    groups = duplicates.find(looks)
    assert [group.rows for group in groups] == [(i, len(drawn) + i) for i in range(len(copies))]
    assert [group.exact for group in groups] == [True, False, False, False, False]
    assert [group.mirrored for group in groups] == [False, False, False, True, False]


def test_copies_are_joined_and_features_may_deny_what_pixels_say(drawn):
    looks = [look(encode(drawn[0], quality=quality)) for quality in (95, 80, 60)] + [look(encode(drawn[1]))]
    (group,) = duplicates.find(looks)
    assert group.rows == (0, 1, 2)
    assert group.cosine is None
    same, other = np.ones(8, np.float16), np.array([1, -1] * 4, np.float16)
    (group,) = duplicates.find(looks, {0: same, 1: same, 2: other})
    assert group.rows == (0, 1)
    assert group.cosine == pytest.approx(1)


def test_empty_pictures_are_no_near_copies():
    looks = [look(encode(Image.new("RGB", (60, 60), (i, 0, 0)), "PNG")) for i in (0, 9, 9)]
    assert [group.rows for group in duplicates.find(looks)] == [(1, 2)]


@pytest.mark.parametrize(
    ("name", "photo", "kind"),
    [
        ("a.jpg", b"not a photo", "unreadable"),
        ("a.jpg", b"", "unreadable"),
        ("a.jpg", encode(draw("cat", np.random.default_rng(0), 100))[:1500], "truncated"),
        ("a.jpg", encode(draw("cat", np.random.default_rng(0), 100), "PNG"), "extension"),
        ("a.png", encode(draw("cat", np.random.default_rng(0), 200).resize((400, 100)), "PNG"), "aspect"),
        ("a.JPG", encode(draw("cat", np.random.default_rng(0), 40)), "tiny"),
        ("a.jpeg", encode(Image.new("RGB", (100, 100), "grey")), "uniform"),
    ],
)
def test_each_fault_has_its_kind_and_a_reason(name, photo, kind):
    faults = look(photo, name).faults
    assert [fault.kind for fault in faults] == [kind]
    assert faults[0].reason


def test_a_sound_photo_has_no_fault_even_without_a_suffix(drawn):
    assert look(encode(drawn[0]), "a.jpg").faults == ()
    assert look(encode(drawn[0], "PNG"), "0").faults == ()


def test_a_further_check_of_files_is_one_entry(drawn, monkeypatch):
    square = file_faults.FileCheck(
        "square", "is square", useless=False, find=lambda photo: "it is" if photo.size[0] == photo.size[1] else None
    )
    monkeypatch.setattr(file_faults, "FILE_CHECKS", (*file_faults.FILE_CHECKS, square))
    assert [fault.kind for fault in look(encode(drawn[0])).faults] == ["square"]
    assert look(encode(drawn[0].resize((90, 110)))).faults == ()
