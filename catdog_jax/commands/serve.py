"""`catdog serve`: a model file behind HTTP."""

import signal
import socket

import uvicorn

from catdog_jax.config import ServeConfig
from catdog_jax.console import console
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.runtime.arguments import find_model
from catdog_jax.runtime.predictor import Predictor
from catdog_jax.serving import deadlines
from catdog_jax.serving.app import application


def serve(config: ServeConfig) -> int:
    """Serves until SIGTERM or SIGINT; requests in flight are answered first.

    Returns:
      The exit status 0.

    Raises:
      CatdogError: the model cannot be used (see `Predictor`), or the address cannot be bound.
      UsageError: a setting is out of range.
    """
    _check_settings(config)
    model = find_model(config.model)
    # Decoders and clients need the cores too: where threads spin, a photo costs up to a third more
    # of their time
    predictor = Predictor(model, batch_size=config.batch_size, threads=config.threads, spin=False)
    with _bound(config.host, config.port) as listener:
        host, port = listener.getsockname()[:2]
        console.print(f"serving {model} at http://{f'[{host}]' if ':' in host else host}:{port}/", soft_wrap=True)
        signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again once it has drained
        settings = uvicorn.Config(
            application(predictor, config),
            http=deadlines.bounded(config.header_timeout),
            ws="none",
            log_level="error",  # strangers cannot fill the log
            timeout_graceful_shutdown=int(config.body_timeout + config.request_timeout) + 1,
            server_header=False,
        )
        uvicorn.Server(settings).run(sockets=[listener])
    return 0


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # who connects from now on waits until the server answers
    except OSError as error:
        reason = error.strerror or error
        raise CatdogError(
            f"{host}:{port}: expected an address to listen at, found: {reason}. Choose another --port."
        ) from None
    return listener


def _check_settings(config: ServeConfig) -> None:
    for name in (
        "max_body",
        "max_files",
        "queue",
        "batch_size",
        "decoders",
        "header_timeout",
        "body_timeout",
        "request_timeout",
    ):
        if getattr(config, name) <= 0:
            raise UsageError(
                f"{name}: expected more than 0, found {getattr(config, name)}. Leave it out for the default."
            )
    if config.queue < config.max_files:
        expected = f"expected --max-files, {config.max_files}, or more, found {config.queue}"
        raise UsageError(
            f"--queue: {expected}: a request of so many photos could never be taken. Lower --max-files too."
        )
    if not 0 <= config.port < 2**16 or config.batch_wait < 0:
        raise UsageError(
            f"port, batch_wait: expected 0 to 65535 and 0 or more, found {config.port} and {config.batch_wait}."
        )
