"""`catdog port`: converts weights once."""

from pathlib import Path

from catdog_jax.backbone.published import cached
from catdog_jax.backbone.weights import load, save
from catdog_jax.config import PortConfig
from catdog_jax.console import say


def port(config: PortConfig) -> Path:
    """Converts weights to this project's .safetensors file, and returns its path.

    Without `config.out` the file becomes the cached conversion, which "auto" finds first.

    Raises:
      CatdogError: see `load`; or the file cannot be written.
    """
    out = config.out or cached()
    ported = load(config.source, config.preprocessing)
    save(out, ported)
    say(f"{out}: {ported.source}, preprocessing {ported.mode}, sha256 {ported.sha256}")
    return out
