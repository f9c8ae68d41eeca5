"""`catdog export`: a head to a file, and the folders around it. JAX is imported for a head, and not for the folders."""

from pathlib import Path

from catdog_jax.config import ExportConfig
from catdog_jax.console import say
from catdog_jax.deployment import browser, triton
from catdog_jax.errors import UsageError
from catdog_jax.photos import sources
from catdog_jax.runtime.default_model import find_model
from catdog_jax.runtime.predictor import Predictor


def export(config: ExportConfig, photos: sources.Dataset | None = None) -> Path:
    """Writes the head of a run, the convolutions and the preprocessing as one ONNX file, and the folders around it.

    `photos` are those to compare on, where they are loaded already.

    Raises:
      CatdogError: as `onnx_file.export`, or a folder cannot be written.
      UsageError: --model has no folder to go to.
    """
    _check_folders(config)
    if config.model is not None:
        return _repacked(config, find_model(config.model))
    from catdog_jax.commands.export_head import export_head  # it brings JAX

    path, content = export_head(config, photos)
    _write_folders(config, content)
    return path


def _repacked(config: ExportConfig, path: Path) -> Path:
    if config.triton is None and config.web is None:
        raise UsageError("--model: expected a folder to put it into, found none. Name one with --web or --triton.")
    Predictor(path)  # says what it is, where it is no model
    _write_folders(config, path.read_bytes())
    return path


def _check_folders(config: ExportConfig) -> None:
    """Says what cannot be written before the work begins."""
    if config.triton is not None:
        triton.check(config.triton)
    if config.web is not None:
        browser.check(config.web, config.web_runtime)


def _write_folders(config: ExportConfig, model: bytes) -> None:
    if config.triton is not None:
        folder = triton.write(config.triton, model)
        say(f"{folder}: a Triton model for tritonserver --model-repository={config.triton}")
    if config.web is not None:
        folder = browser.write(config.web, model, config.web_runtime)
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        say(f"{folder}: {size:.1f} MB for any host of static files; photos stay in the browser")
