"""A line on stdout for each request, for people or in JSON: who asked for what, the status, and how long it took."""

import json
import time
from collections.abc import Callable
from typing import Any, Literal

from catdog_jax.console import printable, write
from catdog_jax.errors import CatdogError

_LONGEST = 200  # characters of a path


class AccessLog:
    """Writes lines until stdout is gone; a server goes on without its log."""

    def __init__(self, form: Literal["text", "json"], put: Callable[[str], None] = write):
        """A log that has no line yet; `put` takes each, with its end."""
        self._json, self._put, self._gone = form == "json", put, False

    def __call__(self, client: str, method: str, path: str, status: int, seconds: float, photos: int | None) -> None:
        """Writes a line. The query is not in `path`, and nothing of a photo but how many there were."""
        now = time.time()
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z",
            "client": client,
            "method": method[:20],
            "path": path[:_LONGEST],
            "status": status,
            "ms": round(1000 * seconds, 1),
            "photos": photos,
        }
        line = json.dumps(entry) if self._json else printable(" ".join(_words(entry)))
        if self._gone:
            return
        try:
            self._put(f"{line}\n")
        except (BrokenPipeError, CatdogError):
            self._gone = True


def _words(entry: dict[str, Any]) -> list[str]:
    photos = entry["photos"]
    counted = [] if photos is None else [f"{photos} {'photo' if photos == 1 else 'photos'}"]
    return [*(str(entry[key]) for key in ("time", "client", "method", "path", "status")), f"{entry['ms']} ms", *counted]
