"""The routes: photos for programs (`/predict`, Open Inference Protocol v2) and a page for people (`/`).

Uploads stay in memory and are forgotten with the request. `asgi` bounds what a stranger sends, and
`batcher` the work that waits.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from catdog_jax.config import ServeConfig
from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding
from catdog_jax.runtime.predictor import Predictor
from catdog_jax.serving import asgi, inference_protocol, openapi, uploads
from catdog_jax.serving.batcher import Batcher, Busy, Places

_PAGE = {"/": "index.html", **{f"/{name}": name for name in ("page.css", "page.js", "backend.js", "orientation.js")}}


def application(predictor: Predictor, config: ServeConfig) -> Starlette:
    """The ASGI application of one model."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # strangers cannot fill the log
    service = _Service(predictor, config)
    described = openapi.document(config, predictor.classes, heatmaps=predictor.explains, assets=_PAGE)
    routes = [
        *(Route(path, _asset(name)) for path, name in _PAGE.items()),
        Route("/model.json", lambda _: JSONResponse(_about(predictor, config))),
        Route("/predict", service.predict, methods=["POST"]),
        *(Route(path, _json({"ready": True})) for path in inference_protocol.HEALTH),
        Route("/v2", _json(inference_protocol.SERVER)),
        Route(inference_protocol.PATH, _json(inference_protocol.model_metadata(predictor.explains))),
        Route(f"{inference_protocol.PATH}/infer", service.infer, methods=["POST"]),
        Route("/openapi.json", _json(described)),
        Route("/metrics", lambda _: PlainTextResponse(service.metrics())),
    ]
    handlers: dict[Any, Callable[[Request, Any], Response]] = {HTTPException: _on_http_error, Exception: _on_crash}
    middleware = [Middleware(asgi.Observed, counts=service.counts, paths={route.path for route in routes})]
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers, lifespan=service.lifespan)


class _Service:
    def __init__(self, predictor: Predictor, config: ServeConfig):
        self._predictor, self._config = predictor, config
        self._batcher = Batcher(predictor.explain, size=config.batch_size, wait=config.batch_wait)
        self._places = Places(config.queue)
        self._decoders = ThreadPoolExecutor(config.decoders, thread_name_prefix="decode")
        self.counts: Counter[tuple[str, int]] = Counter()

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._batcher.start()
        yield
        await self._batcher.stop()
        self._decoders.shutdown(cancel_futures=True)

    async def predict(self, request: Request) -> Response:
        async with self._admitted(request) as (body, take):
            files = await self._files(request, body)
            take(len(files))
            async with asgi.in_time(self._config.request_timeout):
                rows = await asyncio.gather(*(self._judge(name, data) for name, data in files), return_exceptions=True)
            predictions = [_raised(row) for row in rows]
        bad = all("error" in row for row in predictions)
        answer = {"classes": self._predictor.classes, "predictions": predictions}
        return JSONResponse({**answer, "error": predictions[0]["error"]} if bad else answer, 422 if bad else 200)

    async def infer(self, request: Request) -> Response:
        async with self._admitted(request) as (body, take), asgi.in_time(self._config.request_timeout):
            try:
                limits = self._config.max_files, self._predictor.explains
                identity, photos, wanted = await self._decoded(inference_protocol.decode_request, body, *limits)
            except inference_protocol.ProtocolError as error:
                raise HTTPException(400, str(error)) from None
            take(len(photos))
            answers = [_raised(a) for a in await asyncio.gather(*map(self._batcher, photos), return_exceptions=True)]
        heatmaps = [heatmap for _, heatmap in answers if heatmap is not None]
        stacked = np.stack(heatmaps) if heatmaps else None
        return JSONResponse(
            inference_protocol.encode_response(identity, wanted, np.stack([p for p, _ in answers]), stacked)
        )

    def metrics(self) -> str:
        lines = ["# TYPE catdog_requests_total counter"]
        lines += [f'catdog_requests_total{{path="{p}",status="{s}"}} {n}' for (p, s), n in sorted(self.counts.items())]
        for what, count in (("requests", self._places.requests), ("photos", self._places.taken)):
            lines += [f"# TYPE catdog_{what}_in_flight gauge", f"catdog_{what}_in_flight {count}"]
        return "\n".join([*lines, ""])

    @contextlib.asynccontextmanager
    async def _admitted(self, request: Request) -> AsyncIterator[tuple[bytes, Callable[[int], None]]]:
        """The body of a request and what takes places for its photos: it is taken whole, or refused before any is looked at.

        Without a free place it is refused before its body is read, which bounds the memory by queue
        × max_body.
        """
        headers = asgi.CLOSE
        try:
            with self._places.held() as take:
                with self._batcher.coming():
                    body = await asgi.read_body(request, self._config.max_body, self._config.body_timeout)
                headers = {}
                yield body, take
        except Busy as error:
            raise HTTPException(503, str(error), {"retry-after": "1", **headers}) from None

    async def _files(self, request: Request, body: bytes) -> list[uploads.Upload]:
        kind = request.headers.get("content-type", "")
        if not kind.lower().startswith("multipart/form-data"):
            return [uploads.Upload(None, body)]
        try:
            return await self._decoded(uploads.photos, kind, body, self._config.max_files)
        except uploads.UploadError as error:
            raise HTTPException(400, str(error)) from None

    async def _judge(self, name: str | None, data: bytes) -> dict[str, Any]:
        named = {} if name is None else {"name": name}
        try:
            probabilities, heatmap = await self._batcher(await self._decoded(decoding.decode, data))
        except CatdogError as error:
            return {**named, "error": str(error)}
        cells = {} if heatmap is None else {"heatmap": heatmap.tolist()}
        return {**named, **self._predictor.rule.decide(probabilities).row(), **cells}

    async def _decoded(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self._batcher.coming():
            return await asyncio.get_running_loop().run_in_executor(self._decoders, function, *arguments)


def _about(predictor: Predictor, config: ServeConfig) -> dict[str, Any]:
    """What the page wants to know before the first photo."""
    return {"classes": predictor.classes, "decision": predictor.rule.settings(), "max_bytes": config.max_body}


def _raised(result: Any) -> Any:
    if isinstance(result, BaseException):
        raise result
    return result


def _json(content: object) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return JSONResponse(content)

    return answer


def _asset(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def asset(_: Request) -> Response:
        return FileResponse(Path(__file__).parents[1] / "page" / name, headers={"cache-control": "no-cache"})

    return asset


def _on_http_error(request: Request, error: HTTPException) -> Response:
    detail, headers = error.detail, error.headers or {}
    match error.status_code, detail, request.url.path.split("/"):
        case 404, "Not Found", ["", "v2", "models", name, *_] if name != inference_protocol.MODEL:
            detail = f"model: expected {inference_protocol.MODEL!r}, found {name[:100]!r}."
        case 404, "Not Found", _:
            known = f"/predict, {inference_protocol.PATH} or what /openapi.json lists"
            detail = f"{request.method} {request.url.path[:100]}: expected a path of this server: {known}."
        case 405, "Method Not Allowed", _:
            detail = f"{request.method} {request.url.path}: expected {headers.get('Allow', '')}."
    kind = asgi.Early if "connection" in headers else JSONResponse
    return kind({"error": detail}, error.status_code, headers)


def _on_crash(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "the server failed; its log says why."}, 500)
