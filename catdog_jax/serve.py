"""`catdog serve`: the exported model behind HTTP, for programs (`/predict`, Open Inference Protocol v2) and people (`/`).

Everything that a stranger sends is bounded: its bytes, the time that they take, its pixels, and the work that waits. Uploads
stay in memory and are forgotten with the request.
"""

import asyncio
import contextlib
import signal
import socket
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catdog_jax import connection, images, openapi, protocol
from catdog_jax.batcher import Batcher, Busy
from catdog_jax.config import ServeConfig
from catdog_jax.console import console
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.predict import Predictor, find_model, verdict

_PAGE = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js", "/backend.js": "backend.js"}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_CLOSE = {"connection": "close"}  # of an answer before the end of the body
_LINGER = 2.0  # seconds that the rest of such a body is thrown away, because a system that closes on it takes the answer back


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
    # Decoders and clients need the cores too: where threads spin, a photo costs up to a third more of their time
    predictor = Predictor(model, batch_size=config.batch_size, threads=config.threads, spin=False)
    with _bound(config.host, config.port) as listener:
        host, port = listener.getsockname()[:2]
        console.print(f"serving {model} at http://{f'[{host}]' if ':' in host else host}:{port}/", soft_wrap=True)
        signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again once it has drained
        settings = uvicorn.Config(
            application(predictor, config),
            http=connection.bounded(config.header_timeout),
            ws="none",
            log_level="error",  # strangers cannot fill the log
            timeout_graceful_shutdown=int(config.body_timeout + config.request_timeout) + 1,
            server_header=False,
        )
        uvicorn.Server(settings).run(sockets=[listener])
    return 0


def application(predictor: Predictor, config: ServeConfig) -> Starlette:
    """The ASGI application of one model."""
    service = _Service(predictor, config)
    described = openapi.document(config, predictor.classes, heatmaps=predictor.explains, assets=_PAGE)
    routes = [
        *(Route(path, _asset(name)) for path, name in _PAGE.items()),
        Route("/model.json", lambda _: JSONResponse(_about(predictor, config))),
        Route("/predict", service.predict, methods=["POST"]),
        *(Route(path, _json({"ready": True})) for path in protocol.HEALTH),
        Route("/v2", _json(protocol.SERVER)),
        Route(protocol.PATH, _json(protocol.model_metadata(predictor.explains))),
        Route(f"{protocol.PATH}/infer", service.infer, methods=["POST"]),
        Route("/openapi.json", _json(described)),
        Route("/metrics", lambda _: PlainTextResponse(service.metrics())),
    ]
    handlers: dict[Any, Callable[[Request, Any], Response]] = {HTTPException: _on_http_error, Exception: _on_crash}
    middleware = [Middleware(_Observed, counts=service.counts, paths={route.path for route in routes})]
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers, lifespan=service.lifespan)


class _Service:
    def __init__(self, predictor: Predictor, config: ServeConfig):
        self._predictor, self._config = predictor, config
        self._batcher = Batcher(predictor.explain, size=config.batch_size, queue=config.queue, wait=config.batch_wait)
        self._decoders = ThreadPoolExecutor(config.decoders, thread_name_prefix="decode")
        self._in_flight = 0
        self.counts: Counter[tuple[str, int]] = Counter()

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._batcher.start()
        yield
        await self._batcher.stop()
        self._decoders.shutdown(cancel_futures=True)

    async def predict(self, request: Request) -> Response:
        async with self._admitted(request) as body:
            files = await self._files(request, body)
            async with self._in_time():
                rows = await asyncio.gather(*(self._judge(name, data) for name, data in files), return_exceptions=True)
            predictions = [_raised(row) for row in rows]
        bad = all("error" in row for row in predictions)
        answer = {"classes": self._predictor.classes, "predictions": predictions}
        return JSONResponse({**answer, "error": predictions[0]["error"]} if bad else answer, 422 if bad else 200)

    async def infer(self, request: Request) -> Response:
        async with self._admitted(request) as body, self._in_time():
            try:
                limits = self._config.max_files, self._predictor.explains
                identity, photos, wanted = await self._decoded(protocol.decode_request, body, *limits)
            except protocol.ProtocolError as error:
                raise HTTPException(400, str(error)) from None
            answers = [_raised(a) for a in await asyncio.gather(*map(self._batcher, photos), return_exceptions=True)]
        heatmaps = [heatmap for _, heatmap in answers if heatmap is not None]
        stacked = np.stack(heatmaps) if heatmaps else None
        return JSONResponse(protocol.encode_response(identity, wanted, np.stack([p for p, _ in answers]), stacked))

    def metrics(self) -> str:
        lines = ["# TYPE catdog_requests_total counter"]
        lines += [f'catdog_requests_total{{path="{p}",status="{s}"}} {n}' for (p, s), n in sorted(self.counts.items())]
        return "\n".join([*lines, "# TYPE catdog_requests_in_flight gauge", f"catdog_requests_in_flight {self._in_flight}", ""])

    @contextlib.asynccontextmanager
    async def _admitted(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request, if there is room for one more; this bounds the memory by queue × max_body."""
        if self._in_flight >= self._config.queue:
            raise _busy(f"expected at most {self._config.queue} requests at once, found more. Try again in a moment.", _CLOSE)
        self._in_flight += 1
        try:
            with self._batcher.coming():
                body = await self._body(request)
            yield body
        except Busy as error:
            raise _busy(str(error), {}) from None
        finally:
            self._in_flight -= 1

    async def _body(self, request: Request) -> bytes:
        limit, body = self._config.max_body, bytearray()
        too_large = HTTPException(413, f"body: expected at most {limit:,} bytes, found more.", _CLOSE)
        if int(request.headers.get("content-length", 0)) > limit:
            raise too_large
        try:
            async with asyncio.timeout(self._config.body_timeout):
                async for chunk in request.stream():
                    if len(body) + len(chunk) > limit:
                        raise too_large
                    body += chunk
        except TimeoutError:
            message = f"body: expected all of it within {self._config.body_timeout:g} s, found {len(body):,} bytes."
            raise HTTPException(408, message, _CLOSE) from None
        except ClientDisconnect:
            raise HTTPException(400, "body: expected all of it, found that the client went away.", _CLOSE) from None
        return bytes(body)

    async def _files(self, request: Request, body: bytes) -> list[tuple[str | None, bytes]]:
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            return [(None, body)]
        try:
            form = await _InMemory(request.headers, _stream(body), max_files=self._config.max_files, max_fields=0).parse()
        except (MultiPartException, KeyError, ValueError) as error:
            detail = getattr(error, "message", None) or "no boundary"
            raise HTTPException(400, f"body: expected 1 to {self._config.max_files} files, found: {detail}") from None
        files = [(part.filename, await part.read()) for _, part in form.multi_items() if not isinstance(part, str)]
        await form.close()
        if not files:
            raise HTTPException(400, "body: expected a file or more, found none.")
        return files

    async def _judge(self, name: str | None, data: bytes) -> dict[str, Any]:
        named = {} if name is None else {"name": name}
        try:
            probabilities, heatmap = await self._batcher(await self._decoded(images.decode, data))
        except Busy:
            raise
        except CatdogError as error:
            return {**named, "error": str(error)}
        cells = {} if heatmap is None else {"heatmap": heatmap.tolist()}
        return {**named, **verdict(self._predictor.classes, probabilities), **cells}

    async def _decoded(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self._batcher.coming():
            return await asyncio.get_running_loop().run_in_executor(self._decoders, function, *arguments)

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._config.request_timeout):
                yield
        except TimeoutError:
            raise HTTPException(504, f"expected an answer within {self._config.request_timeout:g} s, found none.") from None


class _InMemory(MultiPartParser):
    spool_max_size = 2**62  # no upload touches the disk; the body's limit bounds the memory


class _Observed:
    """Adds the headers of every answer and counts it."""

    def __init__(self, app: ASGIApp, counts: Counter[tuple[str, int]], paths: set[str]):
        self._app, self._counts, self._paths = app, counts, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in self._paths else "other"
                self._counts[path, message["status"]] += 1
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in _HEADERS.items())]
            await send(message)

        await self._app(scope, receive, observed if scope["type"] == "http" else send)


def _about(predictor: Predictor, config: ServeConfig) -> dict[str, Any]:
    """What the page wants to know before the first photo."""
    return {"classes": predictor.classes, "abstain_below": predictor.abstain_below, "max_bytes": config.max_body}


class _Early(JSONResponse):
    """An answer before the end of the request's body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def begin(message: Message) -> None:
            await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

        await super().__call__(scope, receive, begin)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while (await receive()).get("more_body"):
                    pass
        await send({"type": "http.response.body"})


def _raised(found: Any) -> Any:
    if isinstance(found, BaseException):
        raise found
    return found


def _busy(message: str, headers: dict[str, str]) -> HTTPException:
    return HTTPException(503, message, {"retry-after": "1", **headers})


async def _stream(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def _json(content: object) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return JSONResponse(content)

    return answer


def _asset(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def asset(_: Request) -> Response:
        return FileResponse(Path(__file__).with_name("page") / name, headers={"cache-control": "no-cache"})

    return asset


def _on_http_error(request: Request, error: HTTPException) -> Response:
    detail, headers = error.detail, error.headers or {}
    match error.status_code, detail, request.url.path.split("/"):
        case 404, "Not Found", ["", "v2", "models", name, *_] if name != protocol.MODEL:
            detail = f"model: expected {protocol.MODEL!r}, found {name[:100]!r}."
        case 404, "Not Found", _:
            known = f"/predict, {protocol.PATH} or what /openapi.json lists"
            detail = f"{request.method} {request.url.path[:100]}: expected a path of this server: {known}."
        case 405, "Method Not Allowed", _:
            detail = f"{request.method} {request.url.path}: expected {headers.get('Allow', '')}."
    kind = _Early if "connection" in headers else JSONResponse
    return kind({"error": detail}, error.status_code, headers)


def _on_crash(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "the server failed; its log says why."}, 500)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # who connects from now on waits until the server answers
    except OSError as error:
        reason = error.strerror or error
        raise CatdogError(f"{host}:{port}: expected an address to listen at, found: {reason}. Choose another --port.") from None
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
            raise UsageError(f"{name}: expected more than 0, found {getattr(config, name)}. Leave it out for the default.")
    if not 0 <= config.port < 2**16 or config.batch_wait < 0:
        raise UsageError(f"port, batch_wait: expected 0 to 65535 and 0 or more, found {config.port} and {config.batch_wait}.")
