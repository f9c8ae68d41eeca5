"""README as a package index shows it: no link leads nowhere, whether the repository's address is known or not."""

import re

import pytest
from helpers.documents import ROOT

hatch_build = pytest.importorskip("hatch_build", reason="the extra `release` is not installed")
README = (ROOT / "README.md").read_text()
ADDRESS = "https://code.example/owner/catdog-jax"
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)]+)\)")


def links(text: str) -> list[tuple[str, str]]:
    return LINK.findall(re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def test_with_an_address_every_link_is_that_of_a_file_at_the_tag():
    found = links(hatch_build.for_an_index(README, ADDRESS, "v1.2.3"))
    assert len(found) == len(links(README)) > 10
    for (picture, there), (_, here) in zip(found, links(README), strict=True):
        assert there == f"{ADDRESS}/{'raw' if picture else 'blob'}/v1.2.3/{here}"
        assert (ROOT / here.partition("#")[0]).exists()


def test_without_an_address_there_are_no_links_and_the_words_stay():
    text = hatch_build.for_an_index(README, "", "v1.2.3")
    assert not [target for _, target in links(text) if "://" not in target]
    assert "Six drawings" not in text
    assert "| Few photos | 150 photos from a zip to a verdict" in text
    assert "```python\nimport catdog_jax as cd\n" in text


def test_code_and_links_to_elsewhere_stay_as_they_are():
    text = "[a](b.md) [c](https://d.example/e) [f](#g)\n\n```python\nx[0](y)\n```\n"
    assert hatch_build.for_an_index(text, "", "v1") == "a [c](https://d.example/e) [f](#g)\n\n```python\nx[0](y)\n```\n"


def test_the_addresses_are_those_of_the_repository_or_none():
    assert hatch_build.addresses("", "v1") == {}
    found = hatch_build.addresses(ADDRESS, "v1")
    assert all(address.startswith(ADDRESS) for address in found.values())
    assert found["Changelog"].endswith("/v1/CHANGELOG.md")


@pytest.mark.parametrize("repository", ["", ADDRESS], ids=["no address", "an address"])
def test_an_index_renders_it(repository: str):
    markdown = pytest.importorskip("readme_renderer.markdown")
    page = markdown.render(hatch_build.for_an_index(README, repository, "v1"))
    assert page is not None
    for wanted in ("<h1", "<table>", "catdog predict", "<pre"):
        assert wanted in page
    targets = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert all(target.startswith(("https://", "#")) for target in targets)
    assert any(target.startswith("https://") for target in targets) == bool(repository)
