"""The Markdown pages: their links, their headings' anchors and their examples."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "artifacts").rglob("*.md"))]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`[^`\n]*`")


class Example(NamedTuple):
    """A block of code: the page that shows it, its language ("" for an indented block) and its text."""

    page: Path
    language: str
    code: str


def examples(page: Path) -> list[Example]:
    return [Example(page, *match.groups()) for match in _FENCED.finditer(page.read_text())]


def prose(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return _FENCED.sub("", page.read_text())


def links(page: Path) -> list[str]:
    return _LINK.findall(_CODE.sub("", prose(page)))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them of plain words."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def commands(page: Path, program: str) -> Iterator[str]:
    """The lines of a page's shell examples that call a program, without their comments."""
    for example in examples(page):
        if example.language == "sh":
            for line in example.code.splitlines():
                command = line.partition("  #")[0].strip()
                if command.split(maxsplit=1)[:1] == [program]:
                    yield command
