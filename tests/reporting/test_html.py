"""What every page has: escaped values, one seal, and a frame for notebooks."""

import html as standard
from html.parser import HTMLParser

import jinja2
import pytest

from catdog_jax.files import sealed
from catdog_jax.reporting import html

EVIL = "\"><script>alert(1)</script>&'{{ 7 * 7 }}"


def page(title: str) -> str:
    return html.render("base.html.j2", title=title)


def test_a_value_is_text_and_never_markup_nor_a_template():
    document = page(EVIL)
    assert "<script" not in document
    assert "49" not in document.partition("<title>")[2].partition("</title>")[0]
    assert standard.unescape(document.partition("<title>")[2].partition("</title>")[0]) == EVIL


@pytest.mark.parametrize("name", [sealed.UNSEALED, f'<meta name="seal" content="{sealed.UNSEALED}">', sealed.SEAL])
def test_a_page_bears_one_seal_whatever_a_photo_is_called(name, tmp_path):
    document = page(name)
    assert document.count(sealed.SEAL) == 1
    assert standard.unescape(document.partition("<title>")[2].partition("</title>")[0]) == name
    (tmp_path / "page.html").write_bytes(html.with_seal(document))
    sealed.check_seal(tmp_path / "page.html")


def test_a_value_that_a_template_lacks_is_an_error_and_not_a_gap():
    with pytest.raises(jinja2.UndefinedError):
        html.render("base.html.j2")


def test_a_frame_is_one_tag_that_holds_the_page_as_it_is():
    document = page(EVIL)
    tags: list[tuple[str, dict[str, str | None]]] = []

    class Frame(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append((tag, dict(attrs)))

    Frame().feed(html.framed(document))
    assert [(tag, attributes["srcdoc"], attributes["sandbox"]) for tag, attributes in tags] == [
        ("iframe", document, "")
    ]
    html.framed(page("caf\udce9")).encode()  # a name that is not UTF-8
