"""`catdog serve`: a model file behind HTTP."""

from catdog_jax.config import ServeConfig
from catdog_jax.console import say
from catdog_jax.errors import UsageError
from catdog_jax.ranges import check
from catdog_jax.runtime.default_model import find_model
from catdog_jax.runtime.predictor import Predictor
from catdog_jax.serving import asgi, server
from catdog_jax.serving.app import application


def serve(config: ServeConfig) -> int:
    """Serves until SIGTERM or SIGINT; requests in flight are answered first.

    Raises:
      CatdogError: the model cannot be used (see `Predictor`), or the address cannot be bound.
      UsageError: a setting is out of range.
    """
    check(config)
    if config.queue < config.max_files:
        expected = f"expected --max-files, {config.max_files}, or more, found {config.queue}"
        raise UsageError(
            f"--queue: {expected}: a request of so many photos could never be taken. Lower --max-files too."
        )
    asgi.root_path(config.root_path)
    asgi.check_origins(config.cors)
    model = find_model(config.model)
    # Decoders and clients need the cores too: where threads spin, a photo costs up to a third more
    # of their time
    predictor = Predictor(model, batch_size=config.batch_size, threads=config.threads, spin=False, device=config.device)
    with server.listening(config.host, config.port) as listener:
        say(f"serving {model} on {predictor.placement.said()} at {server.url(listener)}")
        server.run(
            application(predictor, config),
            listener,
            header_timeout=config.header_timeout,
            request_timeout=config.body_timeout + config.request_timeout,
        )
    return 0
