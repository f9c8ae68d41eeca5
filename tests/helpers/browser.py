"""A headless Chromium for the tests of the page, and what is asked of it again and again."""

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from catdog_jax.deployment import browser as browser_build
from catdog_jax.errors import CatdogError

try:
    from selenium import webdriver
except ModuleNotFoundError:
    webdriver = None

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps"),
)
SECONDS = 60  # until something that should happen is given up; a busy machine is no failure


def chromium() -> Iterator[Any]:
    """Starts Chromium under Chromedriver; skips where they are not installed."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if webdriver is None:
        pytest.skip("needs the package selenium: pip install 'catdog-jax[dev]'")
    if not browser or not driver:
        pytest.skip("needs Chromium and Chromedriver (Debian: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    page.set_script_timeout(SECONDS)
    yield page
    page.quit()


def eventually(found: Callable[[], Any], what: str) -> Any:
    """The first true answer of `found`."""
    end = time.monotonic() + SECONDS
    while not (answer := found()):
        assert time.monotonic() < end, f"expected {what} within {SECONDS} s"
        time.sleep(0.02)
    return answer


def settled(page: Any, count: int) -> list[dict[str, Any]]:
    """What the cards say once there are `count` and none is waited for."""
    script = """return [...document.querySelectorAll('#results li')].map((item) => ({
        state: item.className, busy: item.hasAttribute('aria-busy'), text: item.querySelector('.verdict').innerText,
        verdict: [...item.querySelectorAll('.verdict span')].map((span) => span.textContent),
        remark: item.querySelector('.remark').textContent, name: item.querySelector('.name').textContent}))"""

    def cards() -> list[dict[str, Any]] | None:
        found = page.execute_script(script)
        return found if len(found) == count and not any(card["busy"] for card in found) else None

    return eventually(cards, f"{count} judged photos")


def choose(page: Any, paths: list[Path]) -> None:
    """Chooses files in the page's file input."""
    page.find_element("id", "files").send_keys("\n".join(map(str, paths)))


def emulate(page: Any, width: int, height: int, *, phone: bool = False, **features: str) -> None:
    """A window of another size; a phone has a finger in place of a mouse. `features` are those of CSS' media queries."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
    media = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})


def percent(share: float) -> str:
    """A probability as the page writes it."""
    return "> 99.9 %" if share >= 0.9995 else f"{100 * share:.1f} %"


@contextlib.contextmanager
def served(model: Path) -> Iterator[str]:
    """`catdog serve` with a model, in a process of its own; its address."""
    command = [
        sys.executable,
        "-m",
        "catdog_jax",
        "serve",
        "--port",
        "0",
        "--model",
        str(model),
        "--max-body",
        "1000000",
    ]
    environment = {**os.environ, "COLUMNS": "500"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        line = process.stderr.readline()
        assert "http://127.0.0.1:" in line, line
        yield line.split()[-1].rstrip("/")
        process.terminate()


def complaints(page: Any) -> list[str]:
    """What the browser's console says since it was last asked; the status of a refused photo is no complaint."""
    # The words behind the number are those of the server's Python
    return [one["message"] for one in page.get_log("browser") if "a status of 422 (" not in one["message"]]


def events(page: Any, method: str) -> list[dict[str, Any]]:
    """The parameters of the events of one kind since it was last asked for any."""
    found = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    return [event["params"] for event in found if event["method"] == method]


def runtime() -> Path:
    """The npm package that the folder is made with."""
    try:
        return browser_build._package(None)
    except CatdogError as error:
        if "npm" in str(error).split(":")[0] or "expected npm" in str(error):
            pytest.skip(f"needs {browser_build.PACKAGE} {browser_build.VERSION}: {error}")
        raise


class Host(SimpleHTTPRequestHandler):
    """A host that knows no media type but those that every host knows."""

    extensions_map: ClassVar = {
        ".html": "text/html",
        ".js": "text/javascript",
        ".css": "text/css",
        "": "application/octet-stream",
    }

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def hosted(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Host, directory=folder)) as host:
        thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{host.server_port}"
        host.shutdown()
        thread.join()
