"""The routes: photos for programs (`/predict`, Open Inference Protocol v2) and a page for people (`/`).

Uploads stay in memory and are forgotten with the request. `asgi` bounds what a stranger sends, and
`batcher` the work that waits.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from catdog_jax.config import ServeConfig
from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding
from catdog_jax.runtime.decision import Verdict
from catdog_jax.runtime.predictor import Predictor
from catdog_jax.serving import asgi, inference_protocol, metrics, openapi, uploads
from catdog_jax.serving.access_log import AccessLog
from catdog_jax.serving.batcher import Answer, Batcher, Busy, Places

_FOLDER = Path(__file__).parents[1] / "page"
_PAGE = {"/": "index.html", **{f"/{name}": name for name in ("page.css", "page.js", "backend.js", "orientation.js")}}
PARTS = ("probabilities", "heatmap")  # of an answer of /predict, where `include` asks for them


def application(predictor: Predictor, config: ServeConfig) -> Starlette:
    """The ASGI application of one model.

    Raises:
      UsageError: `--root-path` or `--cors` is no prefix, or no origin.
    """
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # strangers cannot fill the log
    prefix = asgi.root_path(config.root_path)
    asgi.check_origins(config.cors)
    service = _Service(predictor, config)
    given = inference_protocol.given(predictor)
    described = openapi.document(
        config,
        predictor.classes,
        outputs=given,
        recipe=predictor.recipe,
        assets=_PAGE,
        parts=_parts(predictor),
        prefix=prefix,
    )
    metadata = inference_protocol.model_metadata(given, predictor.recipe)
    routes = [
        Route("/", _front(prefix)),
        *(Route(path, _asset(name)) for path, name in _PAGE.items() if path != "/"),
        Route("/model.json", _json(_about(predictor, config))),
        Route("/predict", service.predict, methods=["POST"]),
        *(Route(path, _json(answer)) for path, answer in inference_protocol.LIVE.items()),
        Route("/v2", _json(inference_protocol.SERVER)),
        *(Route(path, _json(metadata)) for path in inference_protocol.PATHS),
        *(Route(f"{path}/infer", service.infer, methods=["POST"]) for path in inference_protocol.PATHS),
        Route("/openapi.json", _json(described)),
        Route("/metrics", service.figures),
    ]
    log = None if config.access_log == "none" else AccessLog(config.access_log)
    layers = [
        Middleware(asgi.Observed, answered=service.metrics.answered, paths={r.path for r in routes}, log=log),
        Middleware(asgi.Prefixed, prefix=prefix),
        *([Middleware(asgi.CrossOrigin, origins=config.cors)] if config.cors else []),
        Middleware(asgi.Guarded),
    ]
    handlers: dict[Any, Callable[[Request, Any], Response]] = {HTTPException: _on_http_error(prefix)}
    app = Starlette(routes=routes, middleware=layers, exception_handlers=handlers, lifespan=service.lifespan)
    app.router.redirect_slashes = False  # `Prefixed` takes the slash off; an address in an answer would need the prefix
    return app


class _Service:
    def __init__(self, predictor: Predictor, config: ServeConfig):
        self._predictor, self._config = predictor, config
        precision = predictor.metadata.get("precision", "fp32")
        self.metrics = metrics.Metrics(
            precision, batch_size=config.batch_size, device=predictor.device, strangers=predictor.knows_strangers
        )
        self._batcher = Batcher(self._compute, size=config.batch_size, wait=config.batch_wait, metrics=self.metrics)
        self._places = Places(config.queue, self.metrics)
        self._decoders = ThreadPoolExecutor(config.decoders, thread_name_prefix="decode")

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._batcher.start()
        yield
        await self._batcher.stop()
        self._decoders.shutdown(cancel_futures=True)

    async def predict(self, request: Request) -> Response:
        wanted = _included(request, _parts(self._predictor))
        async with self._admitted(request) as (body, take):
            files = await self._files(request, body)
            take(len(files))
            async with asgi.in_time(self._config.request_timeout):
                judged = (self._judge(name, data, wanted) for name, data in files)
                rows = await asyncio.gather(*judged, return_exceptions=True)
            predictions = [_raised(row) for row in rows]
        bad = all("error" in row for row in predictions)
        answer = {"classes": self._predictor.classes, "predictions": predictions}
        return JSONResponse({**answer, "error": predictions[0]["error"]} if bad else answer, 422 if bad else 200)

    async def infer(self, request: Request) -> Response:
        lengths = request.headers.getlist(inference_protocol.HEADER)
        limits = self._config.max_files, inference_protocol.given(self._predictor), self._predictor.recipe
        async with self._admitted(request) as (body, take), asgi.in_time(self._config.request_timeout):
            try:
                asked = await self._decoded(inference_protocol.decode_request, body, lengths, *limits)
            except inference_protocol.ProtocolError as error:
                raise HTTPException(400, str(error)) from None
            request.scope["photos"] = len(asked.photos)
            take(len(asked.photos))
            heatmap = any(output.name == "heatmap" for output in asked.outputs)
            waiting = (self._batcher(photo, heatmap) for photo in asked.photos)
            answers = [_raised(answer) for answer in await asyncio.gather(*waiting, return_exceptions=True)]
        for answer in answers:
            self._judged(answer)
        columns = zip(inference_protocol.OUTPUTS, zip(*answers, strict=True), strict=True)
        stacked = {name: np.stack(values) for name, values in columns if values[0] is not None}
        content, length = inference_protocol.encode_response(asked, stacked, self._predictor.classes)
        if length is None:
            return Response(content, media_type="application/json")
        headers = {inference_protocol.HEADER: str(length)}
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def figures(self, _: Request) -> Response:
        return Response(self.metrics.text(), headers={"content-type": metrics.CONTENT_TYPE})

    def _compute(self, photos: np.ndarray, heatmaps: bool) -> Answer:
        return Answer(*self._predictor.compute(photos, heatmaps))

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
        most = self._config.max_files
        found = [uploads.Upload(None, body)]
        try:
            match kind.partition(";")[0].strip().lower():
                case "multipart/form-data":
                    found = await self._decoded(uploads.photos, kind, body, most)
                case "application/json":
                    found = await self._decoded(uploads.json_photos, body, most)
        except uploads.UploadError as error:
            raise HTTPException(400, str(error)) from None
        request.scope["photos"] = len(found)
        return found

    async def _judge(self, name: str | None, data: bytes, wanted: set[str]) -> dict[str, Any]:
        named = {} if name is None else {"name": name}
        try:
            photo = await self._decoded(decoding.decode, data, self._predictor.recipe)
        except CatdogError as error:
            self.metrics.unreadable.inc()
            return {**named, "error": str(error)}
        try:
            answer = await self._batcher(photo, "heatmap" in wanted)
        except CatdogError as error:
            return {**named, "error": str(error)}
        verdict, heatmap = self._judged(answer), answer.heatmap
        row = {key: value for key, value in verdict.row().items() if key not in PARTS or key in wanted}
        return {**named, **row, **({} if heatmap is None else {"heatmap": heatmap.tolist()})}

    def _judged(self, answer: Answer) -> Verdict:
        """The verdict, counted."""
        verdict = self._predictor.rule.decide(answer.probabilities, answer.strangeness)  # type: ignore[arg-type] # a scalar
        self.metrics.judged(verdict)
        return verdict

    async def _decoded(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self._batcher.coming(), self.metrics.decode.time():
            return await asyncio.get_running_loop().run_in_executor(self._decoders, function, *arguments)


def _parts(predictor: Predictor) -> list[str]:
    """What may be asked for beside the verdict."""
    return [part for part in PARTS if predictor.explains or part != "heatmap"]


def _included(request: Request, parts: list[str]) -> set[str]:
    """What the query asks for: `include=heatmap,probabilities`, or one by one."""
    expected = " or ".join(f"include={part}" for part in parts)
    wanted: set[str] = set()
    for key, value in request.query_params.multi_items():
        names = set(value.split(","))
        if key != "include" or not names <= {*parts}:
            raise HTTPException(400, f"query: expected {expected}, found {f'{key}={value}'[:100]!r}.", asgi.CLOSE)
        wanted |= names
    return wanted


def _about(predictor: Predictor, config: ServeConfig) -> dict[str, Any]:
    """What the page wants to know before the first photo."""
    decision = predictor.rule.settings()
    about = {"classes": predictor.classes, "decision": decision, "heatmaps": predictor.explains}
    return {**about, "recipe": predictor.recipe.to_json(), "max_bytes": config.max_body}


def _raised(result: Any) -> Any:
    if isinstance(result, BaseException):
        raise result
    return result


def _json(content: object) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return JSONResponse(content)

    return answer


def _front(prefix: str) -> Callable[[Request], Awaitable[Response]]:
    """The page, whose files are found below the prefix also where its own address ends without a slash."""
    if not prefix:
        return _asset("index.html")
    text = (_FOLDER / "index.html").read_text(encoding="utf-8")
    for name in ("page.css", "page.js"):
        text = text.replace(f'"{name}"', f'"{prefix}/{name}"')

    async def front(_: Request) -> Response:
        return Response(text, media_type="text/html", headers={"cache-control": "no-cache"})

    return front


def _asset(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def asset(_: Request) -> Response:
        return FileResponse(_FOLDER / name, headers={"cache-control": "no-cache"})

    return asset


def _on_http_error(prefix: str) -> Callable[[Request, HTTPException], Response]:
    def answer(request: Request, error: HTTPException) -> Response:
        detail, headers = error.detail, error.headers or {}
        asked = prefix + request.scope["path"]
        match error.status_code, detail, request.scope["path"].split("/"):
            case 404, "Not Found", ["", "v2", "models", name, *_] if name != inference_protocol.MODEL:
                detail = f"model: expected {inference_protocol.MODEL!r}, found {name[:100]!r}."
            case 404, "Not Found", ["", "v2", "models", _, "versions", version, *_] if (
                version != inference_protocol.VERSION
            ):
                detail = f"version: expected {inference_protocol.VERSION!r}, found {version[:100]!r}."
            case 404, "Not Found", _:
                known = f"{prefix}/predict, {prefix}{inference_protocol.PATH} or what {prefix}/openapi.json lists"
                detail = f"{request.method} {asked[:100]}: expected a path of this server: {known}."
            case 405, "Method Not Allowed", _:
                detail = f"{request.method} {asked}: expected {headers.get('Allow', '')}."
        kind = asgi.Early if "connection" in headers else JSONResponse
        return kind({"error": detail}, error.status_code, headers)

    return answer
