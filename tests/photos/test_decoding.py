"""The decode gate against pixels that are known by other means."""

import contextlib
import hashlib
import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from catdog_jax.photos import av1, decoding
from catdog_jax.photos.recipe import DEFAULT, FIRST


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def blocks(colours: list[list[tuple[int, ...]]], mode: str = "RGB") -> Image.Image:
    """A picture of four plain quarters, 224 pixels wide, so that decoding does not resize it."""
    picture = Image.new(mode, (224, 224))
    for y, row in enumerate(colours):
        for x, colour in enumerate(row):
            picture.paste(colour, (112 * x, 112 * y, 112 * x + 112, 112 * y + 112))
    return picture


def corners(pixels: np.ndarray) -> list[list[tuple[int, ...]]]:
    return [[tuple(int(v) for v in pixels[y, x]) for x in (8, -8)] for y in (8, -8)]


RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)
FOUR = [[RED, GREEN], [BLUE, GREY]]


@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP", "GIF", "TIFF"])
def test_lossless_formats_keep_their_pixels(form):
    options = {"lossless": True} if form == "WEBP" else {}
    pixels = decoding.decode(encoded(blocks(FOUR), form, **options), DEFAULT)
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8
    assert corners(pixels) == [list(row) for row in FOUR]


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}])
def test_jpeg_keeps_its_colours(options):
    pixels = decoding.decode(encoded(blocks(FOUR), "JPEG", quality=95, **options), DEFAULT)
    assert np.abs(np.array(corners(pixels), int) - np.array(FOUR)).max() <= 3


def test_resizing_is_squashing_bicubic_with_antialiasing():
    """Against the definition in float64: Keys' kernel with a = -0.5, stretched by the scale when it shrinks."""
    rng = np.random.default_rng(0)
    source = rng.integers(0, 256, (300, 500, 3), np.uint8)

    def matrix(old: int, new: int) -> np.ndarray:
        scale = max(old / new, 1)
        centres = (np.arange(new) + 0.5) * old / new
        distance = np.abs((np.arange(old)[None] + 0.5 - centres[:, None]) / scale)
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
        return weights / weights.sum(axis=1, keepdims=True)

    across = np.clip(np.rint(np.einsum("xj,yjc->yxc", matrix(500, 224), source)), 0, 255)
    expected = np.clip(np.rint(np.einsum("yi,ixc->yxc", matrix(300, 224), across)), 0, 255)
    pixels = decoding.decode(encoded(Image.fromarray(source), "PNG"), FIRST)
    assert np.abs(pixels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    """The stored picture is what a camera held that way would store; decoded, all are the same upright picture."""
    turned = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a), 7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    stored = Image.fromarray(np.ascontiguousarray(turned[orientation](np.asarray(blocks(FOUR)))))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert corners(decoding.decode(encoded(stored, "PNG", exif=exif), DEFAULT)) == [list(row) for row in FOUR]


@pytest.mark.parametrize(("kind", "settings"), [("PNG", {}), ("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})])
def test_xmp_turns_a_photo_whose_exif_does_not_say(kind, settings):
    """That is Pillow's rule. It is part of the recipe: models and caches depend on it, and page/orientation.js follows it."""
    upright, stored = blocks(FOUR), blocks(FOUR).transpose(Image.Transpose.ROTATE_90)
    xmp, silent, exif = b'<rdf:Description tiff:Orientation="6"/>', Image.Exif(), Image.Exif()
    silent[0x0110], exif[0x0112] = "camera", 1
    if kind == "PNG":  # Pillow writes no XMP into it but by a text of this name
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        given = {"pnginfo": text}
    else:
        given = {"xmp": xmp}
    plain = decoding.decode(encoded(upright, kind, **settings), DEFAULT).astype(int)
    for said in ({}, {"exif": silent}):
        found = decoding.decode(encoded(stored, kind, **settings, **given, **said), DEFAULT).astype(int)
        assert np.abs(found - plain).mean() < 2
    unturned = decoding.decode(encoded(stored, kind, **settings), DEFAULT).astype(int)
    found = decoding.decode(encoded(stored, kind, **settings, **given, exif=exif), DEFAULT).astype(int)
    assert np.array_equal(found, unturned), "EXIF has the last word"
    assert np.abs(found - plain).mean() > 50


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_exif_block_costs_nothing():
    photo = encoded(blocks(FOUR), "JPEG", quality=95)
    broken = photo[:2] + b"\xff\xe1\x00\x10Exif\x00\x00II*\x00\xff\xff\xff\xff" + photo[2:]
    assert np.array_equal(decoding.decode(broken, DEFAULT), decoding.decode(photo, DEFAULT))


@pytest.mark.parametrize(
    ("mode", "stored", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("LA", (100, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("I;16", 257 * 90, (90, 90, 90)),
        ("I;16", 65535, (255, 255, 255)),
    ],
)
def test_every_mode_becomes_rgb(mode, stored, expected):
    pixels = decoding.decode(encoded(Image.new(mode, (30, 20), stored), "PNG"), DEFAULT)
    assert pixels.shape == (224, 224, 3)
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_a_palette_with_transparency_is_composited_on_white():
    picture = Image.new("P", (40, 40), 0)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.paste(1, (0, 20, 40, 40))
    pixels = decoding.decode(encoded(picture, "PNG", transparency=0), DEFAULT)
    assert tuple(pixels[8, 8]) == (255, 255, 255)
    assert tuple(pixels[-8, -8]) == (200, 100, 50)


def test_cmyk_jpeg_is_converted():
    pixels = decoding.decode(encoded(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG", quality=95), DEFAULT)
    assert np.abs(pixels.astype(int) - RED).max() <= 6


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_counts(form):
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert (decoding.decode(data, DEFAULT) == RED).all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a photo, found an empty file"),
        (b"<!doctype html><title>404</title>", "found what looks like HTML"),
        (
            b"just some text",
            r"expected JPEG, .*, HEIF, found unknown content beginning with b'just som'",
        ),
        (encoded(Image.new("RGB", (8, 8)), "JPEG2000"), "found unknown content"),
        (encoded(Image.new("RGB", (8, 8)), "ICO"), "found unknown content"),
    ],
)
def test_what_is_not_a_photo_is_named(data, message):
    with pytest.raises(decoding.ImageError, match=message):
        decoding.decode(data, DEFAULT)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_truncated_photo_is_an_error(form, share):
    rng = np.random.default_rng(1)
    data = encoded(Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)), form)
    with pytest.raises(decoding.ImageError):
        decoding.decode(data[: int(share * len(data))], DEFAULT)


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (8193, 8192), (10_000, 10_000)])
def test_the_pixel_limit_is_checked_before_decoding(width, height):
    """The header alone asks for gigabytes; there is nothing behind it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    body = b"IDAT" + zlib.compress(b"\0")
    data += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    with pytest.raises(decoding.ImageError, match="67,108,864 pixels, found"):
        decoding.decode(data, DEFAULT)


def test_a_picture_just_over_the_limit_is_refused_with_its_size(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 100)
    assert decoding.decode(encoded(Image.new("RGB", (10, 10)), "PNG"), DEFAULT).shape == (224, 224, 3)
    with pytest.raises(decoding.ImageError, match="expected 1 to 100 pixels, found 101 x 1"):
        decoding.decode(encoded(Image.new("RGB", (101, 1)), "PNG"), DEFAULT)


def test_no_byte_string_raises_anything_else():
    """Damage in random places ends in pixels or in an ImageError."""
    rng = np.random.default_rng(2)
    photo = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
    for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"):
        intact = np.frombuffer(encoded(photo, form), np.uint8)
        for _ in range(60):
            damaged = intact.copy()
            places = rng.integers(0, len(damaged), 5)
            damaged[places] = rng.integers(0, 256, 5)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's remarks on damage
                try:
                    shape = decoding.decode(damaged.tobytes(), DEFAULT).shape
                except decoding.ImageError:
                    continue
                assert shape == (224, 224, 3)


def test_read_photo_names_what_is_wrong(tmp_path, monkeypatch):
    with pytest.raises(decoding.ImageError, match="expected a file, found nothing"):
        decoding.read_photo(tmp_path / "absent.jpg")
    with pytest.raises(decoding.ImageError, match="expected a file, found something else"):
        decoding.read_photo(tmp_path)
    monkeypatch.setattr(decoding, "MAX_BYTES", 3)
    (tmp_path / "long.jpg").write_bytes(b"1234")
    with pytest.raises(decoding.ImageError, match="expected at most 3 bytes, found more"):
        decoding.read_photo(tmp_path / "long.jpg")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(decoding.ImageError):
        decoding.read_photo(tmp_path / "loop")


def test_a_cameras_jpeg_of_several_pictures_is_a_jpeg_of_the_first():
    first, second = (Image.new("RGB", (80, 60), colour) for colour in ("red", "blue"))
    file, alone = io.BytesIO(), io.BytesIO()
    first.save(file, "MPO", save_all=True, append_images=[second])
    first.save(alone, "JPEG")
    with Image.open(io.BytesIO(file.getvalue())) as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
    assert decoding.load(file.getvalue()).format == "JPEG"
    np.testing.assert_array_equal(decoding.decode(file.getvalue(), DEFAULT), decoding.decode(alone.getvalue(), DEFAULT))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000"])
def test_a_picture_is_known_by_its_first_bytes(tmp_path, form):
    if form not in Image.registered_extensions().values() or form not in Image.SAVE:
        pytest.skip(f"Pillow without {form}")
    Image.new("RGB", (8, 8)).save(tmp_path / "x", form)
    assert decoding.is_picture(tmp_path / "x")


def test_what_is_no_picture_is_none(tmp_path):
    (tmp_path / "text").write_text("BM, II*, RIFF and ftypheic")
    os.mkfifo(tmp_path / "pipe")
    assert not any(decoding.is_picture(tmp_path / name) for name in ("text", "pipe", "absent", "."))


def test_the_pixels_of_before_are_the_same():
    """By a hash that was taken before TIFF, AVIF and HEIC were read: the recipe's version has not changed."""
    rng = np.random.default_rng(5)
    photo = Image.fromarray(rng.integers(0, 256, (90, 70, 3), np.uint8))
    digest = hashlib.sha256()
    for form in ("PNG", "BMP", "GIF"):
        digest.update(decoding.decode(encoded(photo, form), FIRST))
    assert digest.hexdigest() == "056dd238c1b3e030f22d0d9fce2b887d2d35435e92027459af8ddc58c2a8ac44"


@pytest.mark.parametrize(("form", "size"), [("AVIF", (64, 48)), ("AVIF", (1000, 3)), ("AVIF", (17, 300))])
def test_the_size_of_an_avif_stream_is_read(form, size):
    """Of a still picture and, with its longer header, of the first of a sequence."""
    still = encoded(Image.new("RGBA", size, (9, 200, 8, 99)), form, speed=10)
    assert av1.largest(still) == size[0] * size[1]
    frames = [Image.new("RGB", size, colour) for colour in (RED, BLUE)]
    sequence = encoded(frames[0], form, speed=10, save_all=True, append_images=frames[1:])
    assert av1.largest(sequence.replace(b"ftypavis", b"ftypavif")) == size[0] * size[1]
    with pytest.raises(av1.StreamError, match="found a sequence"):
        av1.largest(sequence)
    with pytest.raises(av1.StreamError, match="found a sequence"):
        av1.largest(sequence.replace(b"ftypavis", b"ftypmif1"))


def test_no_avif_raises_anything_else():
    """Damage in the boxes ends in a number or in a StreamError, soon."""
    rng = np.random.default_rng(2)
    intact = np.frombuffer(encoded(Image.new("RGB", (24, 24), RED), "AVIF", speed=10), np.uint8)
    for _ in range(500):
        damaged = intact.copy()
        damaged[rng.integers(0, len(damaged), 4)] = rng.integers(0, 256, 4)
        with contextlib.suppress(av1.StreamError):
            assert av1.largest(damaged.tobytes()) >= 0


def test_an_avif_stream_that_is_larger_than_it_says_is_not_decoded(monkeypatch):
    """The decoder would make it small, and first make room for all of it."""
    data = encoded(Image.new("RGB", (64, 64), RED), "AVIF", speed=10)
    place = data.index(b"ispe") + 8
    lying = data[:place] + struct.pack(">II", 8, 8) + data[place + 8 :]
    with Image.open(io.BytesIO(lying)) as image:
        assert image.size == (8, 8)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 1000)
    with pytest.raises(decoding.ImageError, match=r"expected at most 1,000 pixels, found a stream of 4,096"):
        decoding.decode(lying, DEFAULT)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def test_a_phones_photo_names_the_extra_that_reads_it(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "has_heic", lambda: False)
    with pytest.raises(
        decoding.ImageError, match=r"HEIC, which needs one more package: pip install 'catdog-jax\[heic\]'"
    ):
        decoding.decode(HEIC, DEFAULT)
    for name, taken in {"a.heic": False, "a.HIF": False, "bare": False, "a.avif": True}.items():
        (tmp_path / name).write_bytes(HEIC)
        assert decoding.is_taken(tmp_path / name) == taken


def test_a_phones_photo_is_read_with_the_extra(tmp_path):
    pytest.importorskip("pillow_heif")
    assert decoding.has_heic()
    photo = decoding.load(encoded(blocks(FOUR), "HEIF", quality=95))
    assert photo.format == "HEIF"
    assert np.abs(np.array(corners(np.asarray(photo.image)), int) - np.array(FOUR)).max() <= 8
    for name in ("a.heic", "bare"):
        (tmp_path / name).write_bytes(HEIC)
        assert decoding.is_taken(tmp_path / name)


def test_files_without_a_suffix_are_known_by_their_bytes(tmp_path):
    for form in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"):
        Image.new("RGB", (8, 8)).save(tmp_path / form, form)
        assert decoding.is_taken(tmp_path / form)
    for name, content in {
        "text": b"text",
        "later.jpg_": b"\xff\xd8\xff\xe0",
        "jxl": b"\xff\x0a\xfa\x7f",
        "empty": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert not decoding.is_taken(tmp_path / name)
    os.mkfifo(tmp_path / "pipe")
    assert not decoding.is_taken(tmp_path / "pipe")
    assert decoding.is_taken(tmp_path / "absent.tiff")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_a_damaged_tiff_says_nothing_on_stderr(compression, capfd):
    data = encoded(blocks(FOUR), "TIFF", compression=compression)
    with pytest.raises(decoding.ImageError, match="damaged"):
        decoding.decode(data[:8] + b"\xff\0A" * 20 + data[68:], DEFAULT)
    assert capfd.readouterr() == ("", "")


def scans_by_walking(data: bytes) -> int:
    """The scans of a JPEG, by following all its segments."""
    scans, place = 0, 2
    while marker := decoding._MARKER.search(data, place):
        place = marker.end()
        if marker[1] == b"\xd9":
            break
        if marker[1] in (b"\x01", b"\xd8"):
            continue
        scans += marker[1] == b"\xda"
        place += int.from_bytes(data[place : place + 2])
    return scans


def test_counting_markers_first_decides_as_following_segments_does(monkeypatch):
    """On JPEGs of many scans, markers in other segments, fill bytes, and noise of the bytes that matter."""
    monkeypatch.setattr(decoding, "MAX_SCANS", 3)
    rng = np.random.default_rng(0)
    photo = encoded(blocks(FOUR), "JPEG", progressive=True)
    segments = [b"\xff\xda\x00\x02", b"\xff\xff\xda\x00\x02", b"\xff\xfe\x00\x06\xff\xda\xff\xda", b"\xff\x00", b"\xda"]
    files = [photo, photo[:-2], b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xda", encoded(blocks(FOUR), "PNG")]
    for _ in range(2000):
        middle = b"".join(segments[i] for i in rng.integers(0, len(segments), rng.integers(0, 12)))
        files.append(b"\xff\xd8" + middle + rng.choice([b"", b"\xff\xd9", b"\xff"]))
        files.append(b"\xff\xd8" + rng.choice(np.array([0, 2, 0xD9, 0xDA, 0xFF, 0xFF], np.uint8), 40).tobytes())
    refused = 0
    for data in files:
        expected = data.startswith(b"\xff\xd8") and scans_by_walking(data) > 3
        refused += expected
        with pytest.raises(decoding.ImageError, match="at most 3 scans") if expected else contextlib.nullcontext():
            decoding._check_scans(data)
    assert 200 < refused < len(files) - 200


def test_real_photos_have_the_expected_statistics(shared_photos):
    """Plain photographs: neither black nor white, three channels that differ."""
    for photo in shared_photos:
        pixels = decoding.decode(decoding.read_photo(Path(photo)), DEFAULT)
        assert 20 < pixels.mean() < 235
        assert pixels.std() > 10
        original = np.asarray(Image.open(photo).convert("RGB"))
        assert np.abs(pixels.mean(axis=(0, 1)) - original.mean(axis=(0, 1))).max() < 1.5
