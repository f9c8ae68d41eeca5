"""Around every request and answer: bounds of bytes and time, headers, counts, a prefix of the paths, other origins.

An answer may go out before the body of its request has ended.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Collection

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catdog_jax.errors import UsageError
from catdog_jax.serving.access_log import AccessLog
from catdog_jax.serving.inference_protocol import HEADER

HEADERS = {  # of every answer
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
CLOSE = {"connection": "close"}  # of an answer before the end of the body
# Seconds that the rest of such a body is thrown away, because a system that closes on it takes the
# answer back
_LINGER = 2.0
_ORIGIN = re.compile(r"https?://[A-Za-z0-9._~\-\[\]:]+")
_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+")


# What a server is told of its surroundings


def root_path(text: str) -> str:
    """A prefix of all paths as the server goes by it: `/name` or empty, whether it came with a slash at its end or not.

    Raises:
      UsageError: it is no path, or one with characters that have a meaning in addresses.
    """
    if text in ("", "/"):
        return ""
    whole = text.removesuffix("/")
    parts = whole.split("/")[1:]
    if whole.startswith("/") and parts and all(_SEGMENT.fullmatch(part) and set(part) != {"."} for part in parts):
        return whole
    expected = "a path such as /catdog, of letters, digits, ., _, ~ and -"
    raise UsageError(f"--root-path: expected {expected}, found {text!r}. Leave it out where there is no prefix.")


def check_origins(origins: Collection[str]) -> None:
    """Raises UsageError where one is no origin: scheme, host and, where it has one, port."""
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise UsageError(
                f"--cors: expected origins such as https://example.org, or *, found {origin!r}. "
                "Give the scheme, and no path."
            )


# Bounds


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """All bytes of a request's body.

    Raises:
      HTTPException: 413, there are more than `limit`; 408, they take longer than `seconds`; 415, they
        are compressed; 400, the client went away.
    """
    body = bytearray()
    too_large = HTTPException(413, f"body: expected at most {limit:,} bytes, found more.", CLOSE)
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_large
    coding = request.headers.get("content-encoding", "identity")
    if coding.lower() not in ("", "identity"):
        found = coding[:100]
        raise HTTPException(415, f"content-encoding: expected none, found {found!r}. Send the body as it is.", CLOSE)
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limit:
                    raise too_large
                body += chunk
    except TimeoutError:
        message = f"body: expected all of it within {seconds:g} s, found {len(body):,} bytes."
        raise HTTPException(408, message, CLOSE) from None
    except ClientDisconnect:
        raise HTTPException(400, "body: expected all of it, found that the client went away.", CLOSE) from None
    return bytes(body)


@contextlib.asynccontextmanager
async def in_time(seconds: float) -> AsyncIterator[None]:
    """Bounds the work on a request.

    Raises:
      HTTPException: 504, it takes longer than `seconds`.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise HTTPException(504, f"expected an answer within {seconds:g} s, found none.") from None


# Layers, from the outermost on


class Observed:
    """Adds the headers of every answer, counts it, and tells the log of it."""

    def __init__(
        self, app: ASGIApp, answered: Callable[[str, int, float], None], paths: Collection[str], log: AccessLog | None
    ):
        self._app, self._answered, self._paths, self._log = app, answered, paths, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application, whose answers are counted and get `HEADERS`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status, asked = time.perf_counter(), 0, scope["path"]

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            if status:  # else the client went away before there was one
                took = time.perf_counter() - begun
                self._answered(scope["path"] if scope["path"] in self._paths else "other", status, took)
                if self._log:
                    client = (scope.get("client") or ["-"])[0]
                    self._log(client, scope["method"], asked, status, took, scope.get("photos"))


class Prefixed:
    """Takes the prefix off the paths, whether a proxy has left it there or not, and a slash off their ends."""

    def __init__(self, app: ASGIApp, prefix: str):
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application, which knows nothing of a prefix."""
        if scope["type"] == "http":
            path: str = scope["path"]
            if self._prefix and f"{path}/".startswith(f"{self._prefix}/"):
                path = path[len(self._prefix) :]
            scope["path"] = path.removesuffix("/") or "/"
        await self._app(scope, receive, send)


class CrossOrigin(CORSMiddleware):
    """Lets pages of other origins ask; what is not allowed is said in JSON."""

    def __init__(self, app: ASGIApp, origins: Collection[str]):
        self._origins = origins
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("Content-Type", HEADER),
            expose_headers=(HEADER, "Retry-After"),
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """What a browser hears before it asks."""
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return answer
        allowed = f"an origin of {', '.join(self._origins)}, GET or POST, and Content-Type or {HEADER.title()}"
        asked = ("origin", "access-control-request-method", "access-control-request-headers")
        found = ", ".join(request_headers[name] for name in asked if name in request_headers)[:200]
        kept = {k: v for k, v in answer.headers.items() if k not in ("content-length", "content-type")}
        return JSONResponse({"error": f"--cors: expected {allowed}, found {found}."}, 400, kept)


class Guarded:
    """Answers 500 where the application fails, within the other layers, so that this answer is as the others."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application; what it raises is raised on, for the log."""
        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, guarded)
        except Exception:
            if scope["type"] == "http" and not begun:
                await JSONResponse({"error": "the server failed; its log says why."}, 500)(scope, receive, send)
            raise


class Early(JSONResponse):
    """An answer before the end of the request's body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer, throws the rest of the body away for `_LINGER` seconds at most, and ends."""

        async def begin(message: Message) -> None:
            await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

        await super().__call__(scope, receive, begin)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while (await receive()).get("more_body"):
                    pass
        await send({"type": "http.response.body"})
