"""A server as a process of its own, or as an application without a socket, and what its tests say to it."""

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request

from PIL import Image

FORM = "multipart/form-data; boundary=B"


@contextlib.contextmanager
def started(model, *options, prefix=()):
    """A server of its own process; its address. At the end it is told to stop, and must have nothing to say."""
    command = [*prefix, sys.executable, "-m", "catdog_jax", "serve", "--port", "0", "--model", str(model), *options]
    environment = {**os.environ, "COLUMNS": "500"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    line = process.stderr.readline()
    assert "http://127.0.0.1:" in line, line
    try:
        yield line.split()[-1].rstrip("/")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


def ask(url, body=None, **headers):
    request = urllib.request.Request(url, body, {k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def multipart(*files):
    parts = [
        b'--B\r\nContent-Disposition: form-data; name="f"; filename="%d"\r\n\r\n%s\r\n' % f for f in enumerate(files)
    ]
    return b"".join([*parts, b"--B--\r\n"])


def photo(grey):
    file = io.BytesIO()
    Image.new("RGB", (30, 20), (grey,) * 3).save(file, "PNG")
    return file.getvalue()


async def sent(app, path, body=None, kind=FORM, **more):
    """Status, headers and body of the answer to a request, without a socket; more headers, or another `method`."""
    method = more.pop("method", "GET" if body is None else "POST")
    path, _, query = path.partition("?")
    messages, found = [{"type": "http.request", "body": body or b""}], []

    async def receive():
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message):
        found.append(message)

    headers = {"content-type": kind, "content-length": str(len(body or b"")), **more}
    encoded = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    asked = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": encoded}
    await app(asked, receive, send)
    return found[0]["status"], dict(found[0]["headers"]), b"".join(message.get("body", b"") for message in found[1:])


def conversation(app, *requests):
    """The answers of an application to requests (the arguments of `sent`), one after another."""

    async def talk():
        async with app.router.lifespan_context(app):
            return [await sent(app, *positional, **named) for positional, named in requests]

    return asyncio.run(talk())
