"""Which model is meant where none is named: that of a run here, else the published one, which the wheel brings."""

from pathlib import Path

from catdog_jax.console import say
from catdog_jax.errors import CatdogError
from catdog_jax.files import sealed

PUBLISHED = "published"  # as --model takes it
_OWN = Path("run/model.onnx")
# Of a wheel, where the build puts it; in a checkout, the repository's, of which it is a copy
_PACKAGED = Path("catdog_jax/published/model.onnx")
_IN_REPOSITORY = Path("artifacts/default/model-int8.onnx")


def find_model(named: Path | None) -> Path:
    """The model that is meant: the one that is named; else that of a run here; else the published one, which is said.

    The name `published` is the published one, unless a file here is called so.

    Raises:
      CatdogError: as `published`, where it is the one that is meant.
    """
    if named is not None:
        return published() if named == Path(PUBLISHED) and not named.exists() else named
    if _OWN.exists():
        return _OWN
    path = published()
    say(f"No {_OWN} here: using the published model, {path}")
    return path


def published() -> Path:
    """The published model: the one that came with the package, in a checkout the repository's. Its seal is checked.

    Raises:
      CatdogError: the installation has none, or it is not as it was published.
    """
    root = Path(__file__).parents[2]
    path = next((file for file in (root / _PACKAGED, root / _IN_REPOSITORY) if file.exists()), None)
    if path is None:
        raise CatdogError(
            f"--model: expected {_OWN} here or the published model at {root / _PACKAGED}, found neither. "
            "Name a model, run `catdog run` first, or install catdog-jax again."
        )
    try:
        sealed.check_seal(path)
    except CatdogError as error:
        again = (
            "pip install --force-reinstall --no-deps catdog-jax"
            if path == root / _PACKAGED
            else f"git checkout {_IN_REPOSITORY}"
        )
        raise CatdogError(f"{error} It is the published model: name another with --model, or run: {again}.") from None
    return path
