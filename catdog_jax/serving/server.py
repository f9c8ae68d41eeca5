"""The process that serves: a socket, and uvicorn with connections that nobody can hold for long."""

import signal
import socket

import uvicorn
from starlette.types import ASGIApp

from catdog_jax.errors import CatdogError
from catdog_jax.serving import deadlines


def listening(host: str, port: int) -> socket.socket:
    """A socket at which clients can connect; they wait until the server answers.

    Raises:
      CatdogError: the address cannot be bound.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        reason = error.strerror or error
        raise CatdogError(
            f"{host}:{port}: expected an address to listen at, found: {reason}. Choose another --port."
        ) from None
    return listener


def url(listener: socket.socket) -> str:
    """The address of the socket, as browsers take it."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def run(application: ASGIApp, listener: socket.socket, *, header_timeout: float, request_timeout: float) -> None:
    """Serves until SIGTERM or SIGINT; requests in flight are answered first.

    Headers must arrive, and an answer must be taken, within `header_timeout` seconds; a request
    takes `request_timeout` at most, from the end of its headers on.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again once it has drained
    settings = uvicorn.Config(
        application,
        http=deadlines.bounded(header_timeout),
        ws="none",
        log_level="error",  # strangers cannot fill the log
        timeout_graceful_shutdown=int(request_timeout) + 1,
        server_header=False,
    )
    uvicorn.Server(settings).run(sockets=[listener])
