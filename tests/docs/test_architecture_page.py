"""docs/architecture.md draws the house as it is: every module in the tree, every file that it names there."""

import re
from collections.abc import Iterator
from pathlib import Path

from helpers.documents import ROOT, examples, prose

PAGE = ROOT / "docs" / "architecture.md"
MOST_WORDS = 6


def drawn() -> Iterator[tuple[Path, str]]:
    """The files and folders of the tree, with what is said of each; two spaces are a level."""
    (tree,) = [e.code for e in examples(PAGE) if e.language == "text" and e.code.startswith("catdog_jax/")]
    place: list[str] = []
    for line in tree.splitlines():
        indented, name, said = re.fullmatch(r"( *)(\S+) *(.*)", line).groups()
        place[len(indented) // 2 :] = [name.rstrip("/")]
        yield Path(*place), said


def test_the_tree_has_exactly_the_modules_that_exist():
    modules = {path for path, _ in drawn() if path.suffix == ".py"}
    packages = ROOT / "catdog_jax", ROOT / "scripts"
    exist = {path.relative_to(ROOT) for package in packages for path in package.rglob("*.py")}
    assert (sorted(map(str, exist - modules)), sorted(map(str, modules - exist))) == ([], [])


def test_the_tree_says_a_few_words_of_each_file():
    for path, said in drawn():
        assert len(said.split()) <= MOST_WORDS, path
        assert said or path.name == "__init__.py" or path.parent.name == "scripts" or path.parent == Path(), path


def test_the_files_that_the_page_names_exist():
    named = re.findall(r"`([\w/]+\.py)`", prose(PAGE))
    assert len(named) > 10
    for name in named:
        assert (ROOT / "catdog_jax" / name).is_file() or (ROOT / name).is_file(), name


def test_the_tables_that_the_page_names_exist():
    for name, where in re.findall(r"`([A-Z_]{4,})`(?: and `[A-Z]+`)? of `([\w/]+\.py)`", prose(PAGE)):
        assert re.search(rf"^{name}\b.*=", (ROOT / "catdog_jax" / where).read_text(), re.MULTILINE), (name, where)
