"""The convolutions are found below any prefix; what lies beside them is left out, what lies among them is another network."""

from collections.abc import Callable

import jax
import numpy as np
import pytest
from helpers import checkpoint_files as files
from helpers.weight_files import SHAPES, named, stamped, torchvision_names

from catdog_jax.backbone import layouts, weights
from catdog_jax.backbone.safe_pickle import Stored
from catdog_jax.errors import CatdogError

Arrays = dict[str, np.ndarray]


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def features(params) -> Arrays:
    return {name: array for name, array in torchvision_names(params).items() if name.startswith("features.")}


def below(prefix: str, arrays: Arrays) -> Arrays:
    return {prefix + name: array for name, array in arrays.items()}


TIMM: Arrays = {
    "pre_logits.fc1.weight": zeros(8, 32, 7, 7),
    "pre_logits.fc1.bias": zeros(8),
    "head.fc.weight": zeros(2, 8),
}
TORCH: dict[str, Callable[[Arrays], Arrays]] = {
    "timm": lambda f: f | TIMM,
    "DataParallel": lambda f: below("module.", f | {"classifier.0.weight": zeros(2, 2)}),
    "a part of a model": lambda f: (
        below("backbone.vgg.", f) | {"neck.bn.running_mean": zeros(4), "neck.conv.weight": zeros(2, 4, 1, 1)}
    ),
    "a trainer's": lambda f: below("state_dict/module.", f) | {"optimizer/state/0/exp_avg": zeros(64, 3, 3, 3)},
    "another trainer's": lambda f: below("model/", f) | {"epoch/loss": zeros()},
    "numbers beside": lambda f: (
        {"epoch": zeros(), "seed": np.uint32([1, 2])} | {n.removeprefix("features."): a for n, a in f.items()}
    ),
    "features alone": lambda f: {name.removeprefix("features."): array for name, array in f.items()},
    "children in a Sequential": lambda f: {name.replace("features.", "0."): array for name, array in f.items()},
}


@pytest.mark.parametrize("name", TORCH)
def test_pytorchs_convolutions_are_found_below_any_prefix(params, name):
    tensors = TORCH[name](features(params))
    for build in (files.safetensors_file, files.array_pickle):
        assert weights.from_bytes(build(tensors), "file").sha256 == weights.digest(params)


REFUSED: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "VGG19": (
        lambda k: k | {"block3_conv4/kernel": zeros(3, 3, 16, 16), "block3_conv4/bias": zeros(16)},
        r"missing: none; extra: block3_conv4/bias, block3_conv4/kernel\. VGG16 has 13 convolutions; with more it is .* VGG19",
    ),
    "batch normalisation": (
        lambda k: k | {"batch_normalization/gamma": zeros(64), "batch_normalization/moving_mean": zeros(64)},
        r"extra: batch_normalization/gamma, batch_normalization/moving_mean\. Normalisation among them makes another network",
    ),
    "two networks": (
        lambda k: below("teacher/", k) | below("student/", k),
        r"expected one VGG16, found 2, below 'student/', 'teacher/'\. Save one of them alone",
    ),
    "half a network": (
        lambda k: dict(list(k.items())[:10]) | {"block9/kernel": zeros(2)},
        r"expected the weights of VGG16's convolutions, found tensors named block1_conv1/bias, ",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_network_is_refused_by_what_it_is(params, name):
    change, message = REFUSED[name]
    plain = named(params, lambda _, layer: f"{layer}/", "kernel", "bias")
    assert (
        weights.from_bytes(files.npz(plain | {"dense/kernel": zeros(2, 2), "dense/bias": zeros(2)}), "f").mode
        == "torch"
    )
    with pytest.raises(CatdogError, match=rf"^mine\.npz: .*{message}"):
        weights.from_bytes(files.npz(change(plain)), "mine.npz")


def torchvision_vgg(plan: list[int], normalised: bool) -> dict[str, Stored]:
    """The names and shapes of torchvision's vgg: a width for each convolution, 0 for a pool."""
    shapes: dict[str, tuple[int, ...]] = {"classifier.0.weight": (4096, 25088), "classifier.0.bias": (4096,)}
    index, inputs = 0, 3
    for width in plan:
        if width:
            shapes |= {f"features.{index}.weight": (width, inputs, 3, 3), f"features.{index}.bias": (width,)}
            if normalised:
                parts = ("weight", "bias", "running_mean", "running_var")
                shapes |= {f"features.{index + 1}.{part}": (width,) for part in parts}
            index, inputs = index + (3 if normalised else 2), width
        else:
            index += 1
    return {name: Stored(shape, np.dtype("f4"), lambda: pytest.fail("read")) for name, shape in shapes.items()}


def test_torchvisions_other_networks_are_named():
    vgg16 = [width for block in ([64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3) for width in [*block, 0]]
    vgg19 = [width for block in ([64] * 2, [128] * 2, [256] * 4, [512] * 4, [512] * 4) for width in [*block, 0]]
    assert list(layouts.find(torchvision_vgg(vgg16, False), "f").names) == [
        (n, p) for n in SHAPES for p in ("kernel", "bias")
    ]
    with pytest.raises(CatdogError, match=r"extra: .*features\.1\.running_mean.*such as vgg16_bn"):
        layouts.find(torchvision_vgg(vgg16, True), "vgg16_bn.pth")
    with pytest.raises(
        CatdogError, match=r"missing: features\.17\.weight.*with more it is another network, such as VGG19"
    ):
        layouts.find(torchvision_vgg(vgg19, False), "vgg19.pth")


@pytest.mark.parametrize("length", [1, 4000])
def test_many_names_are_searched_soon(length):
    tensors = {"x/" * (length // 2) + f"{i}.weight": Stored((2,), np.dtype("f4"), bytes) for i in range(10_000)}
    with pytest.raises(CatdogError, match=r"found missing|found tensors named"):
        layouts.find(tensors, "file")


@pytest.mark.lenient_types
@pytest.mark.lenient_ranks
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("form", ["nested", "sequential", "flat"])
def test_keras_own_files_of_fine_tuned_models(params, tmp_path, monkeypatch, form):
    """Models as people build them on VGG16, of a sixteenth of the width, in all three kinds of file that Keras 3 writes."""
    keras = pytest.importorskip("keras")
    pytest.importorskip("h5py")
    params = stamped(params, "caffe")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model = fine_tuned(keras, params, form)
        model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
        model.optimizer.build(model.trainable_variables)
        for name in ("saved.keras", "saved.h5", "saved.weights.h5"):
            (model.save_weights if name == "saved.weights.h5" else model.save)(tmp_path / name)
            found = weights.load(str(tmp_path / name))
            assert (found.mode, found.sha256) == ("caffe", weights.digest(params)), name


def fine_tuned(keras, params, form: str):
    layers = keras.layers
    x = first = keras.Input((32, 32, 3))
    for layer in weights.LAYERS:
        x = layers.Conv2D(layer.outputs, 3, padding="same", kernel_initializer="zeros", name=layer.name)(x)
        x = layers.MaxPooling2D()(x) if layer.pool else x
    base = keras.Model(first, x, name="vgg16")
    for name, arrays in params.items():
        base.get_layer(name).set_weights([arrays["kernel"], arrays["bias"]])
    top = [
        layers.GlobalAveragePooling2D(),
        layers.Dense(4, name="mine"),
        layers.Dropout(0.5),
        layers.Dense(1, name="cat_or_dog"),
    ]
    if form == "sequential":
        return keras.Sequential([base, *top])
    photo = keras.Input((32, 32, 3))
    x = base.output if form == "flat" else base(layers.RandomFlip()(photo))
    for one in top:
        x = one(x)
    return keras.Model(base.input if form == "flat" else photo, x)
