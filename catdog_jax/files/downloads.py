"""Downloads that can be resumed and are verified before they take their name."""

import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import NamedTuple

from catdog_jax.console import progress_bar
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.files import atomic

BLOCK = 2**18
TIMEOUT_SECONDS = 30
MB = 1e6


class Download(NamedTuple):
    """A published file: its address, its length in bytes, the SHA-256 of its content, and the variable that names a mirror."""

    url: str
    size: int
    sha256: str
    mirror: str

    @property
    def name(self) -> str:
        """The last part of the address."""
        return Path(urllib.parse.urlsplit(self.url).path).name

    @property
    def address(self) -> str:
        """Where the file is fetched from: below what the variable `mirror` names, where it is set, else `url`."""
        mirror = os.environ.get(self.mirror)
        return f"{mirror.rstrip('/')}/{self.name}" if mirror else self.url


def fetch(download: Download, directory: Path) -> Path:
    """Downloads a file unless it is there, and returns its path.

    The bytes go to NAME.part, from where an interrupted download continues the next time; the file
    takes its name only when its hash is right. Proxies are taken from the usual environment
    variables (https_proxy, no_proxy).

    Raises:
      CatdogError: the server cannot be reached or refuses, the connection ends early (what has come
        is kept), or the content is not the published one (the .part file is removed).
      UsageError: the variable that names the mirror holds no address.
    """
    path = directory / download.name
    if path.exists():
        return path
    part = path.with_name(f"{path.name}.part")
    advice = f"Run again, set {download.mirror} to a mirror's folder, or name the path of a copy of {download.name}."
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _receive(download, part)
        _accept(download, part, path)
    except urllib.error.HTTPError as error:
        error.close()
        raise CatdogError(
            f"{download.address}: expected a file, found HTTP {error.code} {error.reason}. {advice}"
        ) from None
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
        raise CatdogError(
            f"{download.address}: expected a file, found: {getattr(error, 'reason', error)}. {advice}"
        ) from None
    return path


def _receive(download: Download, part: Path) -> None:
    """Brings `part` to its full length, beginning where it ends."""
    have = part.stat().st_size if part.exists() else 0
    if have == download.size:
        return
    with _open(download, have if have < download.size else 0) as response:
        have = have if response.status == http.client.PARTIAL_CONTENT else 0
        length = response.headers["Content-Length"]
        if length is not None and have + int(length) != download.size:
            raise CatdogError(
                f"{download.address}: expected {download.size:,} bytes, found {have + int(length):,}: not the published file. "
                "Check the mirror or the proxy."
            )
        with open(part, "ab" if have else "wb") as file, progress_bar("MB") as progress:
            task = progress.add_task(download.name, total=download.size / MB)
            progress.update(task, completed=have / MB)
            while block := response.read(min(BLOCK, download.size - have)):
                file.write(block)
                have += len(block)
                progress.update(task, completed=have / MB)
            file.flush()
            os.fsync(file.fileno())
    if have < download.size:
        raise CatdogError(
            f"{download.address}: expected {download.size:,} bytes, found the connection closed after {have:,}. "
            "Run again: the download continues from there."
        )


def _open(download: Download, start: int) -> http.client.HTTPResponse:
    """Asks for a file from byte `start` on; a server that cannot do that sends all of it, with status 200."""
    headers = {"User-Agent": "catdog-jax"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        request = urllib.request.Request(download.address, headers=headers)
    except ValueError:
        raise UsageError(
            f"{download.mirror}: expected a URL like https://HOST/FOLDER, found {download.address}."
        ) from None
    return urllib.request.build_opener().open(request, timeout=TIMEOUT_SECONDS)


def _accept(download: Download, part: Path, path: Path) -> None:
    """Gives a whole download its name, or removes it where its content is not the published one."""
    digest = atomic.sha256_of_file(part)
    if digest != download.sha256:
        part.unlink()
        raise CatdogError(
            f"{download.address}: expected sha256 {download.sha256}, found {digest}: not the published file, removed. "
            "Run again; if a mirror is set, check it."
        )
    os.replace(part, path)
    atomic.sync_directory(path.parent)
