"""The first kernel tells whose the weights are, and so their pixels; where it tells nothing, nobody guesses."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import checkpoint_files as files
from helpers.weight_files import named, stamped, torchvision_names, unknown, with_first

from catdog_jax.backbone import pixels, weights
from catdog_jax.errors import CatdogError, UsageError


def kernel(mode: str) -> np.ndarray:
    first = {"block1_conv1": {"kernel": np.random.default_rng(3).normal(0, 0.2, (3, 3, 3, 64)).astype(np.float32)}}
    return stamped(first, mode)["block1_conv1"]["kernel"]


@pytest.mark.parametrize("noise", [0, 0.05])
@pytest.mark.parametrize("mode", ["torch", "caffe"])
def test_a_training_is_told_in_either_order_and_after_fine_tuning(mode, noise):
    moved = kernel(mode) + np.random.default_rng(4).normal(0, noise, (3, 3, 3, 64)).astype(np.float32)
    assert pixels.told_by(moved)[:2] == (mode, False)
    assert pixels.told_by(moved[:, :, ::-1])[:2] == (mode, True)
    assert pixels.told_by(moved.astype(np.float16))[:2] == (mode, False)


def test_the_real_weights_are_told(real_weights):
    real = real_weights.params["block1_conv1"]["kernel"]
    assert pixels.told_by(real) == ("torch", False, "torchvision's")
    scaled = real / np.float32(0.225 * 255)
    assert scaled.std() == pytest.approx(0.004, abs=5e-4)
    assert pixels.told_by(scaled)[:2] == ("caffe", True)  # for plain pixels, but with red first
    assert pixels.told_by(scaled[:, :, ::-1])[:2] == ("caffe", False)
    assert pixels.told_by(real * np.float32(4.4)).mode is None  # scaled for pixels up to 1: nobody's


@pytest.mark.parametrize("seed", range(5))
def test_strangers_tell_nothing(seed):
    rng = np.random.default_rng(seed)
    for made in (rng.normal(0, 0.27, (3, 3, 3, 64)), rng.normal(0, 0.05, (3, 3, 3, 64)), np.zeros((3, 3, 3, 64))):
        assert pixels.told_by(made)[:2] == (None, False)
    assert pixels.told_by(rng.normal(0, 0.004, (3, 3, 3, 64)))[:2] == ("caffe", False)  # whose order nobody knows


def test_caffes_weights_with_pytorchs_names_are_caffes(params, capsys):
    """As in vgg16-00b39a1b.pth, which was once taken for torchvision's and trained to 65 %."""
    caffe = stamped(params, "caffe")
    found = weights.from_bytes(files.torch_zip(torchvision_names(caffe)), "vgg16.pth")
    assert (found.mode, found.named) == ("caffe", False)
    assert found.sha256 == weights.digest(caffe)
    red_first = with_first(caffe, caffe["block1_conv1"]["kernel"][:, :, ::-1])  # as torchvision's IMAGENET1K_FEATURES
    turned = weights.from_bytes(files.torch_zip(torchvision_names(red_first)), "vgg16.pth")
    assert (turned.mode, turned.sha256) == ("caffe", found.sha256)
    said = "vgg16.pth: the first kernel is Caffe's with red and blue swapped; it was turned for preprocessing caffe.\n"
    assert capsys.readouterr().err == said
    assert (
        weights.from_bytes(files.torch_zip(torchvision_names(red_first)), "vgg16.pth", "caffe").sha256 == found.sha256
    )


def test_a_contradiction_is_refused_and_a_name_decides(params, capsys):
    torchvisions = files.npz(named(params, lambda _, layer: f"{layer}/{layer}/", "kernel", "bias"))
    message = (
        r"^vgg\.npz: expected one preprocessing, found two: its names are those of Keras: caffe, but the first kernel is "
        r"torchvision's: torch\. Name the right one: catdog port --source FILE --preprocessing torch \(or caffe\)\.$"
    )
    with pytest.raises(CatdogError, match=message):
        weights.from_bytes(torchvisions, "vgg.npz")
    assert weights.from_bytes(torchvisions, "vgg.npz", "torch").mode == "torch"
    assert capsys.readouterr().err == ""
    found = weights.from_bytes(torchvisions, "vgg.npz", "caffe")
    assert (found.mode, found.named) == ("caffe", True)
    said = "vgg.npz: preprocessing caffe is taken, as named, though the first kernel is torchvision's: torch.\n"
    assert capsys.readouterr().err == said


def test_what_was_named_once_holds_for_the_ported_file(params, tmp_path, capsys):
    mine = files.npz(named(params, lambda _, layer: f"{layer}/", "kernel", "bias"))
    for mode in ("unit", "caffe"):
        weights.save(tmp_path / "named.safetensors", weights.from_bytes(mine, "mine.npz", mode))
        capsys.readouterr()
        assert weights.load(str(tmp_path / "named.safetensors")).mode == mode
        assert f"preprocessing {mode} is taken, as named" in capsys.readouterr().err.replace("\n", " ")
    # As earlier versions took Caffe's weights for others
    wrong = replace(weights.from_bytes(mine, "mine.npz"), mode="caffe")
    weights.save(tmp_path / "wrong.safetensors", wrong)
    with pytest.raises(
        CatdogError, match="found two: its metadata say caffe, but the first kernel is torchvision's: torch"
    ):
        weights.load(str(tmp_path / "wrong.safetensors"))
    weights.save(tmp_path / "unit.safetensors", replace(wrong, mode="unit"))  # nobody's, so somebody named it
    assert weights.load(str(tmp_path / "unit.safetensors")).mode == "unit"


@pytest.mark.parametrize(
    "build", [lambda p: files.torch_zip(torchvision_names(p)), lambda p: files.npz(torchvision_names(p))]
)
def test_what_cannot_be_told_is_asked(params, build):
    data = build(unknown(params))
    message = (
        r"^file: expected weights that tell their preprocessing, found an unknown first kernel\. Name it: catdog port "
    )
    with pytest.raises(UsageError, match=message):
        weights.from_bytes(data, "file")
    assert weights.from_bytes(data, "file", "caffe").mode == "caffe"
    odd = files.safetensors_file(torchvision_names(unknown(params)), {"preprocessing": "odd"})
    with pytest.raises(UsageError, match="expected weights that tell their preprocessing, found odd"):
        weights.from_bytes(odd, "file")
