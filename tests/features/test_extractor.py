"""The convolutions on the devices: settings, batches, and both algorithms on real photos."""

import dataclasses
import re
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from catdog_jax import numerics
from catdog_jax.backbone import weights
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.features import extractor as extractors
from catdog_jax.features import memory
from catdog_jax.heads import head
from catdog_jax.photos import decoding
from catdog_jax.photos.recipe import DEFAULT


@pytest.fixture
def two_cores(monkeypatch):
    """Two CPU devices that share 8 GB."""
    monkeypatch.setattr(memory, "of", lambda _: 4e9)
    return [types.SimpleNamespace(platform="cpu")] * 2


def test_a_core_takes_eight_photos_or_what_is_asked_for(two_cores):
    assert [memory.photos_on_each(two_cores, asked) for asked in (None, 3, 50)] == [8, 3, 50]


def test_a_batch_that_takes_too_much_memory_is_wrong_usage(two_cores):
    with pytest.raises(
        UsageError, match=r"--batch-size 51: .* 4 GB .* 102 photos at once, .* 4 GB\. Try --batch-size 50 or less"
    ):
        memory.photos_on_each(two_cores, 51)
    with pytest.raises(UsageError, match="found 1,000,000 photos at once, which take 40,000 GB"):
        memory.photos_on_each([types.SimpleNamespace(platform="gpu")] * 8, 1_000_000)


def test_an_accelerator_of_little_memory_takes_smaller_batches(monkeypatch):
    one = [types.SimpleNamespace(platform="gpu")]
    for total, expected in ((80e9, 256), (4e9, 100), (1e6, 1), (0, 256)):
        monkeypatch.setattr(memory, "of", lambda _, total=total: total)
        assert memory.photos_on_each(one, None) == expected


def full(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9663676416 bytes.")


class Late:
    """A result whose computation failed behind the program."""

    def __array__(self, *_, **__):
        full()


@pytest.mark.parametrize("compute", [full, lambda *_: Late()], ids=["at once", "when it is read"])
def test_a_device_without_memory_says_which_batch_to_try(monkeypatch, compute):
    devices = len(jax.local_devices())
    photos = np.zeros((1, 224, 224, 3), np.uint8)
    for size, advice in ((6, "Try --batch-size 3"), (1, "Compute on the CPU with JAX_PLATFORMS=cpu")):
        many = extractors.Extractor(weights.random(), conv="direct", batch_size=size)
        assert many.batch_size == size * devices
        monkeypatch.setattr(many, "_compute", compute)
        with pytest.raises(CatdogError) as error:
            many(photos)
        assert str(error.value) == (
            f"cpu: expected memory for {size} photos at once, found too little of it free. {advice}, or end other programs "
            "that use the device."
        )
        assert error.value.__suppress_context__


def test_a_device_that_is_not_there_is_told_before_weights_are_looked_for(monkeypatch):
    def absent():
        raise UsageError("JAX_PLATFORMS=cuda: expected such a device")

    monkeypatch.setattr(extractors.jax_environment, "require_devices", absent)
    with pytest.raises(UsageError, match="JAX_PLATFORMS=cuda: expected such a device"):
        extractors.Extractor("no-such-weights.h5")


def test_other_errors_of_a_device_stay_what_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory.told(8):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")


def test_weights_that_do_not_fit_are_told_too(monkeypatch):
    monkeypatch.setattr(jax, "device_put", full)
    with pytest.raises(CatdogError, match="found too little of it free"):
        extractors.Extractor(weights.random(), conv="direct", batch_size=1)


@pytest.fixture(scope="module")
def extractor() -> extractors.Extractor:
    return extractors.Extractor(weights.random(), pool="avg+max", conv="direct", batch_size=1)


@pytest.mark.parametrize(
    "photos",
    [
        np.zeros((1, 224, 224, 3), np.float32),
        np.zeros((1, 160, 160, 3), np.uint8),
        np.zeros((224, 224, 3), np.uint8),
        np.zeros((0, 224, 224, 1), np.uint8),
    ],
    ids=lambda photos: f"{photos.dtype} {photos.shape}",
)
def test_other_pixels_are_refused(extractor, photos):
    expected = re.escape(
        f"photos: expected uint8 [N, 224, 224, 3], found {photos.dtype} {[*photos.shape]}. Use decoding.decode."
    )
    for take in (extractor, extractor.dispatch):
        with pytest.raises(CatdogError, match=expected):
            take(photos)


def test_no_photos_have_no_features(extractor):
    found = extractor(np.zeros((0, 224, 224, 3), np.uint8))
    assert (found.shape, found.dtype) == ((0, 1024), np.float32)


def test_winograd_in_bfloat16_is_wrong_usage(real_weights):
    with pytest.raises(UsageError, match="--conv winograd: expected --precision float32, found bfloat16"):
        extractors.Extractor(real_weights, precision="bfloat16", conv="winograd")


def test_real_photos_through_the_real_network(real_weights, shared_photos):
    """Both algorithms and all poolings agree, padding changes nothing, and the mirror view is the mirrored photo's."""
    photos = np.stack([decoding.decode(photo.read_bytes(), DEFAULT) for photo in shared_photos[2:5]])
    everything = extractors.Extractor(real_weights, pool="none", views=("original", "mirror"), batch_size=4)
    dispatched = np.asarray(everything.dispatch(np.concatenate([photos, photos[:1]])))
    assert dispatched.shape == (4, 2, 7, 7, 512)
    np.testing.assert_array_equal(dispatched[0], dispatched[3])
    average = extractors.Extractor(real_weights, pool="avg", conv="direct", batch_size=2)
    found = average(photos)
    expected = dispatched[:3, 0].astype(np.float64).mean(axis=(1, 2))
    assert found.shape == (3, 512)
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-4
    np.testing.assert_allclose(average(photos[:1, :, ::-1])[0], dispatched[0, 1].mean(axis=(0, 1)), atol=1e-3)


def test_features_are_the_same_bytes_whatever_is_computed_beside_them(real_weights, shared_photos):
    """In another order, alone in a padded batch, and as part of more views and poolings."""
    photos = np.stack([decoding.decode(photo.read_bytes(), DEFAULT) for photo in shared_photos[2:6]])
    average = extractors.Extractor(real_weights, pool="avg", batch_size=4)
    found = average(photos)
    np.testing.assert_array_equal(average(photos[::-1])[::-1], found)
    np.testing.assert_array_equal(average(photos[1:2])[0], found[1])
    more = extractors.Extractor(real_weights, pool="avg+max", views=("mirror", "original"), batch_size=4)(photos)
    np.testing.assert_array_equal(more[:, 1, :512], found)


def test_a_head_decides_alike_on_features_of_all_algorithms(real_weights, shared_photos):
    """The published head: probabilities from Winograd's features and from direct convolution's differ by rounding alone."""
    if lacking := extractors.ALGORITHMS["native"].lacks():
        pytest.skip(lacking)
    fitted = head.load(Path(__file__).parents[2] / "artifacts" / "default" / "head.safetensors")
    photos = np.stack([decoding.decode(photo.read_bytes(), DEFAULT) for photo in shared_photos])
    fast, faster, direct = (
        head.probabilities(
            fitted.params, extractors.Extractor(real_weights, pool=fitted.pool, conv=conv)(photos).astype(np.float16)
        )
        for conv in ("winograd", "native", "direct")
    )
    for found in (fast, faster):
        assert not np.array_equal(found, direct)  # or the comparison compares nothing
        np.testing.assert_allclose(found, direct, atol=1e-4)
        np.testing.assert_array_equal(found >= 0.5, direct >= 0.5)


@pytest.mark.parametrize(("conv", "mode"), [("direct-gpu", "caffe"), ("direct-tpu", "torch")])
def test_forms_for_accelerators_are_the_same_network(conv, mode):
    """Through all that runs on an accelerator, against NumPy in float64."""
    pretrained = dataclasses.replace(weights.random(), mode=mode)
    photos = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    expected = numerics.convolutions(pretrained.params, numerics.vgg16_pixels(photos, mode)).mean(axis=(1, 2))
    found = extractors.Extractor(pretrained, conv=conv, batch_size=1)(photos)
    assert np.abs(found - expected).max() <= numerics.FLOAT32 * expected.max()


def test_weights_are_in_the_type_that_is_computed_in_before_any_photo_comes():
    found = extractors.Extractor(weights.random(), conv="direct-gpu", precision="bfloat16", batch_size=1)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found._params)} == {"bfloat16"}
    assert found._params["block1_conv1"]["kernel"].shape == (64, 3, 3, 8)
    assert found._params["block2_conv1"]["kernel"].shape == (128, 3, 3, 64)


@pytest.mark.parametrize(
    ("platform", "precision", "expected"),
    [
        ("gpu", "bfloat16", "direct-gpu"),
        ("gpu", "float32", "direct-gpu"),
        ("tpu", "float32", "direct-tpu"),
    ],
)
def test_each_platform_has_its_fastest(platform, precision, expected):
    devices = [types.SimpleNamespace(platform=platform)] * 2
    assert extractors._fastest(devices, precision) == (expected, "")


def test_several_views_are_rows_side_by_side():
    both = extractors.Extractor(weights.random(), views=("original", "mirror"), conv="direct", batch_size=2)
    photos = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    found, mirrored = both(photos), both(photos[:, :, ::-1])
    assert (found.shape, found.dtype) == ((1, 2, 512), np.float32)
    np.testing.assert_array_equal(found, mirrored[:, ::-1])


def fastest(
    monkeypatch, devices: int, lacks: str = "", precision: str = "float32", registers: bool = False
) -> tuple[str, str]:
    """What "auto" takes on so many CPU devices of a machine of two cores."""
    monkeypatch.setattr(extractors, "cores", lambda: 2)
    for name, suits in (("native", True), ("amx", registers)):
        algorithm = extractors.ALGORITHMS[name]._replace(lacks=lambda: lacks, suits=lambda suits=suits: suits)
        monkeypatch.setitem(extractors.ALGORITHMS, name, algorithm)
    return extractors._fastest([types.SimpleNamespace(platform="cpu")] * devices, precision)


def test_auto_takes_the_fastest_that_there_is(monkeypatch):
    assert fastest(monkeypatch, 2) == ("native", "")
    assert fastest(monkeypatch, 2, "no compiler.") == ("winograd", "--conv native would be faster: no compiler.")
    assert fastest(monkeypatch, 1) == ("winograd", "")  # one thread would leave a core idle
    assert fastest(monkeypatch, 2, precision="bfloat16") == ("direct", "")
    assert fastest(monkeypatch, 1, precision="bfloat16", registers=True) == ("amx", "")
    told = fastest(monkeypatch, 2, "no compiler.", precision="bfloat16", registers=True)
    assert told == ("direct", "--conv amx would be faster: no compiler.")


def test_an_algorithm_that_cannot_run_here_is_wrong_usage(monkeypatch):
    native = extractors.ALGORITHMS["native"]._replace(lacks=lambda: "expected a compiler, found none.")
    monkeypatch.setitem(extractors.ALGORITHMS, "native", native)
    with pytest.raises(UsageError, match=r"--conv native: expected a compiler, found none\. Or leave --conv out\."):
        extractors.Extractor(weights.random(), conv="native")


@pytest.mark.parametrize(("conv", "precision"), [("native", "float32"), ("amx", "bfloat16")])
def test_what_is_written_for_a_processor_is_wrong_usage_on_a_card(monkeypatch, conv, precision):
    monkeypatch.setattr(extractors.jax, "local_devices", lambda: [types.SimpleNamespace(platform="gpu")])
    with pytest.raises(UsageError, match=rf"--conv {conv}: expected a cpu, found a gpu\. Leave --conv out\."):
        extractors.Extractor(weights.random(), conv=conv, precision=precision)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "gem"}, r"--pool: expected avg, max, avg\+max or none, found gem"),
        ({"conv": "fft"}, "--conv: expected auto, amx, native, winograd, direct, direct-gpu or direct-tpu, found fft"),
        ({"precision": "float64"}, "--precision: expected auto, float32 or bfloat16, found float64"),
        ({"views": ("original", "upside down")}, "--views: expected original or mirror, found original, upside down"),
        ({"views": "original,mirror"}, "--views: expected original or mirror, found original,mirror"),
        ({"views": ()}, "--views: expected original or mirror, found none"),
        ({"batch_size": 0}, "--batch-size: expected 1 or more, found 0"),
    ],
)
def test_settings_out_of_range_are_wrong_usage(options, message):
    with pytest.raises(UsageError, match=message):
        extractors.Extractor(weights.random(), **options)


def test_what_is_no_array_is_a_wrong_type(extractor):
    with pytest.raises(TypeError, match="photos: expected an array, found list"):
        extractor([1, 2, 3])


def test_a_convolution_is_a_line(monkeypatch):
    def brightness(params, x, dtype):
        return params * x[:, ::32, ::32, :1].repeat(512, axis=3)

    monkeypatch.setitem(
        extractors.ALGORITHMS, "brightness", extractors.Algorithm(lambda _: 2.0, brightness, ("float32",))
    )
    photos = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    found = extractors.Extractor(weights.random(), conv="brightness", precision="float32", batch_size=1)(photos)
    expected = 2 * ((photos[:, ::32, ::32, 0] / 255 - 0.485) / 0.229).mean(axis=(1, 2))
    np.testing.assert_allclose(found, np.repeat(expected[:, None], 512, axis=1), rtol=1e-4)
