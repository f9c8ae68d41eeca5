"""Around every request and answer: bounds of bytes and time, headers, counts, and an answer before a body has ended."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """All bytes of a request's body.

    Raises:
      HTTPException: 413, there are more than `limit`; 408, they take longer than `seconds`; 400, the
        client went away.
    """
    body = bytearray()
    too_large = HTTPException(413, f"body: expected at most {limit:,} bytes, found more.", CLOSE)
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_large
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


class Observed:
    """Adds the headers of every answer and counts it."""

    def __init__(self, app: ASGIApp, counts: Counter[tuple[str, int]], paths: set[str]):
        self._app, self._counts, self._paths = app, counts, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application, whose answers are counted and get `HEADERS`."""

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in self._paths else "other"
                self._counts[path, message["status"]] += 1
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        await self._app(scope, receive, observed if scope["type"] == "http" else send)


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
