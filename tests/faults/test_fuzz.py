"""Random and mutated bytes: each reader gives what it promises or its own error, soon, and never a warning."""

import io
import random
import time
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from helpers import checkpoint_files as files
from helpers import corpus
from helpers.figures import record
from helpers.models import tiny_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from catdog_jax.backbone import checkpoint_files
from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding
from catdog_jax.photos.recipe import DEFAULT
from catdog_jax.runtime import model_check

SLOWEST = 5.0  # seconds for one input
SECONDS, LONG_SECONDS = 1.0, 30.0  # for each kind of file
ARRAYS = {"a/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "a/bias": np.float32([-1.5, 0, 7])}


def photo_seeds(form: str) -> list[bytes]:
    picture = corpus.quarters(side=32)
    options: dict[str, list[dict]] = {
        "JPEG": [{}, {"progressive": True}, {"exif": corpus.exif(6)}, {"restart_marker_blocks": 1}],
        "PNG": [{}, {"exif": corpus.exif(6)}, {"interlace": 1}],
        "WEBP": [{}, {"lossless": True}],
        "BMP": [{}],
        "GIF": [{}, {"save_all": True, "append_images": [Image.new("RGB", (32, 32))]}],
    }
    modes = {
        "JPEG": ("L", "CMYK"),
        "PNG": ("RGBA", "P", "1", "LA"),
        "WEBP": ("RGBA",),
        "BMP": ("P", "1"),
        "GIF": ("L",),
    }
    plain = [corpus.encoded(picture, form, **chosen) for chosen in options[form]]
    return plain + [corpus.encoded(picture.convert(mode), form) for mode in modes[form]]


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    **{form: lambda form=form: photo_seeds(form) for form in ("JPEG", "PNG", "WEBP", "BMP", "GIF")},
    "npz": lambda: [files.npz(ARRAYS)],
    "safetensors": lambda: [files.safetensors_file(ARRAYS)],
    "pickle": lambda: [files.array_pickle(ARRAYS), files.torch_legacy(ARRAYS), files.torch_zip(ARRAYS)],
    "onnx": lambda: [tiny_model().SerializeToString()],
}
WORDS = (
    b"\0" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\0\0\0",
    b"\xff\xd8",
    b"\xff\xda",
    b"IDAT",
    b"(",
    b"q\xff",
)


def mutated(data: bytes, generator: random.Random, other: bytes) -> bytes:
    """One to four changes: bytes set, flipped, cut out, repeated, or spliced in from another file or from `WORDS`."""
    made = bytearray(data)
    for _ in range(generator.randint(1, 4)):
        start = generator.randrange(len(made) + 1)
        end = min(len(made), start + int(generator.paretovariate(0.7)))
        match generator.randrange(6):
            case 0:
                made[start:end] = generator.randbytes(end - start)
            case 1 if start < len(made):
                made[start] ^= 1 << generator.randrange(8)
            case 2:
                del made[start:end]
            case 3:
                made[start:start] = made[start:end] * generator.randint(1, 50)
            case 4:
                made[start:end] = generator.choice(WORDS)
            case _:
                place = generator.randrange(len(other))
                made[start:end] = other[place : place + int(generator.paretovariate(0.5))]
    return bytes(made[: 2**20])


def decode(data: bytes) -> None:
    pixels = decoding.decode(data, DEFAULT)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (224, 224, 3))


def read_tensors(data: bytes) -> None:
    for stored in checkpoint_files.parse(data, "file").tensors.values():
        # As `weights` chooses
        if stored.dtype.kind == "f" and np.prod([float(extent) for extent in stored.shape]) < 2**20:
            checkpoint_files.read(stored, "file")


READERS: dict[str, Callable[[bytes], object]] = {
    **dict.fromkeys(("JPEG", "PNG", "WEBP", "BMP", "GIF"), decode),
    **dict.fromkeys(("npz", "safetensors", "pickle"), read_tensors),
    "onnx": model_check.screen,
}


def attempt(kind: str, data: bytes) -> bool:
    """Whether it is refused. Whatever is raised but the reader's own error is a finding."""
    start = time.perf_counter()
    try:
        READERS[kind](data)
        refused = False
    except CatdogError as error:
        refused = isinstance(error, decoding.ImageError) or READERS[kind] is not decode
        if not refused:
            raise
    assert time.perf_counter() - start < SLOWEST
    return refused


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # zipfile's, of an archive that names a member twice
@pytest.mark.parametrize("kind", SEEDS)
def test_mutated_files_are_read_or_refused(kind, request):
    long = request.config.getoption("--long")
    seeds = SEEDS[kind]()
    generator = random.Random(time.time_ns() if long else kind)
    ends = time.monotonic() + (LONG_SECONDS if long else SECONDS)
    executions = refused = 0
    while time.monotonic() < ends:
        data = mutated(generator.choice(seeds), generator, generator.choice(seeds))
        try:
            refused += attempt(kind, data)
        except BaseException:
            print(f"a finding in {kind}: {data!r}")  # to be put into the corpus
            raise
        executions += 1
    assert 0 < refused <= executions
    record(f"fuzz {kind}", {"executions": executions, "refused": refused, "findings": 0}, long)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(list(READERS)),
    start=st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM", b"GIF89a", b"\x80\x02", b"PK\3\4", b"\x08\x08"]
    ),
    rest=st.binary(max_size=400),
)
def test_any_bytes_are_read_or_refused(kind, start, rest):
    attempt(kind, start + rest)


def test_a_large_text_is_no_warning():
    """Pillow warns of damage; under `-W error` that would be a crash, and without it noise."""
    broken = corpus.segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")
    photo = corpus.jpeg()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decoding.decode(photo[:2] + broken + photo[2:], DEFAULT)
        Image.open(io.BytesIO(photo)).close()
    assert not caught
