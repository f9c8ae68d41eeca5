"""The version, the changelog and git's tag agree, and the files in dist/ are of this version."""

import datetime
import re
import subprocess
from pathlib import Path

import pytest
from helpers.documents import ROOT

from catdog_jax import __version__

pytestmark = pytest.mark.long


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def test_the_changelog_begins_with_this_version_and_its_date():
    title = next(line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## "))
    version, _, date = title.removeprefix("## ").partition(", ")
    assert version == __version__, f"CHANGELOG.md: expected the section of {__version__} on top, found {title!r}."
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", date), (
        f"CHANGELOG.md: expected `## {version}, YEAR-MONTH-DAY`, found {title!r}."
    )
    datetime.date.fromisoformat(date)


def test_this_commit_has_the_tag_of_the_version():
    tags = git("tag", "--points-at", "HEAD").split()
    assert f"v{__version__}" in tags, (
        f"expected the tag v{__version__} at this commit, found {tags}. Run: git tag v{__version__}"
    )


def test_nothing_is_uncommitted():
    assert git("status", "--porcelain") == "", "expected a clean working tree, so that the tag is what is built"


def test_dist_has_this_version_alone(wheel: Path):
    assert sorted(path.name for path in wheel.parent.iterdir()) == [wheel.name, f"catdog_jax-{__version__}.tar.gz"]
