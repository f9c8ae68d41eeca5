"""MkDocs' hook: README is the first page, and files outside docs/ that a page links to are part of the site.

Links in the Markdown files are those of the repository (`../artifacts/…` from a page in docs/), so
that they work wherever the files are read. In the site everything lies below docs/.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
HOME = {"README.md": "index.md"}
LINK = re.compile(r"\]\(([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds README, and whatever a page links to, and what those link to."""
    waiting = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    known = {*waiting}
    while waiting:
        page = waiting.pop()
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            if target.is_file() and target not in known:
                known.add(target)
                waiting += [target] if target.suffix == ".md" else []
    for target in sorted(known):
        name = target.relative_to(ROOT).as_posix()
        if not name.startswith("docs/"):
            files.append(File.generated(config, HOME.get(name, name), abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns the repository's links into the site's."""
    place = Path(page.file.src_uri)
    if (ROOT / "docs" / place).is_file():
        return markdown.replace("](../", "](")
    return markdown.replace("](docs/", "](").replace("](README.md", "](index.md")
