"""The pages hang together: links and anchors resolve, README stays short, the site loads nothing from elsewhere."""

import re
import subprocess
import sys

import pytest
from helpers.documents import PAGES, ROOT, anchors, links

LONGEST = 150  # lines of README
LOADS = re.compile(r"""(?:\bsrc=|<link[^>]*\bhref=|@import|url\()\s*["']?(?:https?:)?//""")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_anchors_resolve(page):
    for link in links(page):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_readme_is_short_and_leads_to_every_page():
    readme = ROOT / "README.md"
    assert len(readme.read_text().splitlines()) <= LONGEST
    assert {(ROOT / link.partition("#")[0]).resolve() for link in links(readme)} >= {*(ROOT / "docs").glob("*.md")}


def test_the_tests_of_the_promises_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)`", (ROOT / "docs" / "reliability.md").read_text())
    assert len({*named}) > 10
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_lines_of_prose_are_short():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        code = False
        for line in page.read_text().splitlines():
            code ^= line.startswith("```")
            if not code and not line.startswith(("|", "#", "!", "    ", "```")):
                assert len(line) <= 100 or " " not in line.strip("- "), f"{page.name}: {line}"


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    """`mkdocs build` is strict: a broken link, an unknown anchor or a page that is in no menu is an error."""
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    pages = [*tmp_path.glob("*.html"), *tmp_path.glob("css/*.css")]
    assert len(pages) > 12
    assert [page.name for page in pages if LOADS.search(page.read_text())] == []
