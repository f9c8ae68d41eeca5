"""The folder of `catdog export --web`: what is in it, and what is refused."""

import json
import os
import re
import stat
import sys
from pathlib import Path

import pytest
from helpers import browser
from helpers.models import tiny_model

from catdog_jax.commands import export
from catdog_jax.config import ExportConfig
from catdog_jax.deployment import browser as browser_build
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.runtime.predictor import Predictor

PUBLISHED = Path(__file__).parents[2] / "artifacts" / "default" / "model-int8.onnx"
PAGE = Path(browser_build.__file__).parents[1] / "page"
SAME = ("index.html", "page.css", "page.js", "orientation.js")  # as the server's

SPACES = {"http://www.w3.org/2000/svg", r"http://ns.adobe.com/xap/1.0/\0"}  # names, which nothing is asked of

runtime = pytest.fixture(scope="module")(browser.runtime)


@pytest.fixture(scope="module")
def folder(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("web") / "site"
    export.export(ExportConfig(model=PUBLISHED, web=site, web_runtime=runtime))
    return site


# The folder


def test_the_page_is_the_servers_with_another_backend(folder: Path) -> None:
    assert all((folder / name).read_bytes() == (PAGE / name).read_bytes() for name in SAME)
    assert (folder / "backend.js").read_bytes() == (PAGE / "web" / "backend.js").read_bytes()
    exported = [
        re.findall(r"^export (?:async )?\w+ (\w+)", (PAGE / at / "backend.js").read_text(), re.M) for at in ("", "web")
    ]
    assert exported[0] == exported[1] == ["privacy", "classify"]
    assert (folder / "model.onnx").read_bytes() == PUBLISHED.read_bytes()
    about = json.loads((folder / "model.json").read_text())
    predictor = Predictor(PUBLISHED)
    assert (about["classes"], about["decision"]) == (list(predictor.classes), predictor.rule.settings())
    assert about["decision"]["abstain_below"] > 0.5
    assert set(about["licences"]) == {"code", "weights", "runtime"}


def test_no_file_of_the_page_names_another_host() -> None:
    for file in PAGE.rglob("*.*"):
        assert set(re.findall(r"https?://[^'\"\s]+", file.read_text())) <= SPACES, file


def test_a_folder_of_an_earlier_run_is_replaced_and_one_of_other_origin_is_not(runtime: Path, tmp_path: Path) -> None:
    model = tiny_model().SerializeToString()
    browser_build.write(tmp_path / "site", model, runtime)
    browser_build.check(tmp_path / "site", runtime)
    browser_build.write(tmp_path / "site", model, runtime)
    (tmp_path / "site" / "index.html").write_text("mine")
    for act in (
        lambda: browser_build.check(tmp_path / "site", runtime),
        lambda: browser_build.write(tmp_path / "site", model, runtime),
    ):
        with pytest.raises(
            CatdogError, match=r"site: expected an empty folder .* found index\.html of other origin\. .* --web"
        ):
            act()
    assert (tmp_path / "site" / "index.html").read_text() == "mine"


def test_a_model_that_says_little_of_itself_is_taken() -> None:
    assert browser_build.about(tiny_model().SerializeToString())["decision"] == {
        "threshold": 0.5,
        "abstain_below": None,
    }


def test_an_exported_model_needs_a_folder_and_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--model: expected a folder .* --web or --triton"):
        export.export(ExportConfig(model=PUBLISHED))
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(CatdogError, match=r"no\.onnx: expected an ONNX model"):
        export.export(ExportConfig(model=tmp_path / "no.onnx", triton=tmp_path / "models"))
    export.export(ExportConfig(model=PUBLISHED, triton=tmp_path / "models"))
    assert (tmp_path / "models" / "catdog" / "1" / "model.onnx").read_bytes() == PUBLISHED.read_bytes()


# The runtime


def npm(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> Path:
    """A cache, and an npm that runs `code` in its place."""
    monkeypatch.setenv("CATDOG_CACHE", str(folder / "cache"))
    monkeypatch.setenv("PATH", str(folder / "bin"))
    (folder / "bin").mkdir()
    script = folder / "bin" / "npm"
    script.write_text(f"#!{sys.executable}\nimport sys\n{code}")
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    return folder / "cache"


def test_npm_asks_for_the_package_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = npm(tmp_path, monkeypatch, "import pathlib; pathlib.Path('../asked').write_text(' '.join(sys.argv))")
    with pytest.raises(CatdogError, match="expected a file"):
        browser_build.check(tmp_path / "site")
    asked = (cache / "asked").read_text().split()
    assert {"--no-update-notifier", "--no-audit", "--no-fund", "--ignore-scripts"} <= set(asked)


def test_without_npm_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = npm(tmp_path, monkeypatch, "")
    os.remove(tmp_path / "bin" / "npm")
    with pytest.raises(
        CatdogError, match=r"^--web: expected npm .* found none\. Install Node\.js\. Or name .*\.tgz, with --web-r"
    ):
        browser_build.check(tmp_path / "site")
    assert not cache.exists()


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("sys.exit('npm error code ENOTFOUND\\nnpm error no such host')", "code ENOTFOUND no such host"),
        ("sys.exit(7)", "status 7"),
        ("", "status 0"),
        (f"open('{browser_build.PACKAGE}-{browser_build.VERSION}.tgz', 'w').close(); sys.exit(1)", "status 1"),
    ],
)
def test_what_npm_cannot_fetch_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, found: str
) -> None:
    cache = npm(tmp_path, monkeypatch, code)
    with pytest.raises(
        CatdogError,
        match=rf"^npm pack {browser_build.PACKAGE}@{browser_build.VERSION}: expected a file, found: {found}\. Or name",
    ):
        browser_build.check(tmp_path / "site")
    assert list(cache.iterdir()) == []


def test_another_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = npm(
        tmp_path, monkeypatch, f"open('{browser_build.PACKAGE}-{browser_build.VERSION}.tgz', 'w').write('not it')"
    )
    refused = r"\.tgz: expected onnxruntime-web .* with sha512-\S+, found sha512-\S+\. "
    with pytest.raises(CatdogError, match=f"{refused}It was removed; check npm's registry"):
        browser_build.check(tmp_path / "site")
    assert list(cache.iterdir()) == []
    (cache / f"{browser_build.PACKAGE}-{browser_build.VERSION}.tgz").write_bytes(b"damaged since")
    with pytest.raises(CatdogError, match=f"{refused}Delete it and run again"):
        browser_build.check(tmp_path / "site")
    (tmp_path / "mine.tgz").write_bytes(b"not it either")
    with pytest.raises(CatdogError, match=f"mine{refused}Name the file of that version with --web-runtime"):
        browser_build.check(tmp_path / "site", tmp_path / "mine.tgz")
    with pytest.raises(CatdogError, match=r"none\.tgz: expected onnxruntime-web .*, found: No such file"):
        browser_build.check(tmp_path / "site", tmp_path / "none.tgz")
    assert not (tmp_path / "site").exists()
