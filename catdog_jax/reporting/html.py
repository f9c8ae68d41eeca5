"""The pages that this project writes: self-contained HTML that follows the reader's light or dark mode.

A page is a template in catdog_jax/page/report, filled by Jinja2. Names of photos and classes come
from strangers: Jinja2 escapes every value, and the page's content security policy admits no script
and nothing from outside.
"""

import base64
import functools
import io
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from catdog_jax import __version__
from catdog_jax.files import sealed

PALETTE = {  # name -> light, dark; plots are drawn in the light colours, which then become variables
    "ink": ("#1f2328", "#e6e4df"),
    "muted": ("#63686e", "#9c9fa3"),
    "line": ("#deddd7", "#35383c"),
    "paper": ("#fafaf7", "#15171a"),
    "card": ("#fefefd", "#1c1f23"),
    "accent": ("#17697f", "#6cc0d4"),
    "error": ("#b5482a", "#e98e6e"),
}
_FOLDER = Path(__file__).parents[1] / "page"
_PLACE = '<meta name="seal" content="{}">'  # in the head of page/report/base.html.j2


def render(template: str, **values: Any) -> str:
    """A whole page as one HTML document.

    The template is a file in catdog_jax/page/report that extends base.html.j2. Of the values
    text is escaped, `Markup` is not.
    """
    document = _templates().get_template(template).render(style=_stylesheet(), version=__version__, **values)
    # A name may look like a seal, and one page bears one seal.
    escaped = document.replace(sealed.SEAL, sealed.SEAL.replace(":", "&#58;"))
    return escaped.replace(_PLACE.format(""), _PLACE.format(sealed.UNSEALED), 1)


def with_seal(document: str) -> bytes:
    """The bytes of a page, with a seal that `catdog verify` checks; ids that are not UTF-8 are escaped."""
    return sealed.seal(document.encode("utf-8", "backslashreplace"))


def framed(document: str) -> str:
    """A page as a notebook shows it: in a frame of its own, so that neither's style reaches the other."""
    shown = document.encode("utf-8", "backslashreplace").decode()
    frame = Markup('<iframe srcdoc="{}" sandbox="" style="width:100%;height:44rem;border:0"></iframe>')
    return str(frame.format(shown))


def bold(value: object) -> Markup:
    """Text that stands out."""
    return Markup("<b>{}</b>").format(value)


def jpeg(image: Image.Image) -> bytes:
    """A picture as a small JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85, optimize=True)
    return buffer.getvalue()


@functools.cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(_FOLDER / "report")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = lambda name: Markup("/<wbr>").join(str(name).split("/"))
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return environment


@functools.cache
def _stylesheet() -> Markup:
    light, dark = ("".join(f"--{name}:{pair[mode]};" for name, pair in PALETTE.items()) for mode in (0, 1))
    rules = (_FOLDER / "report.css").read_text(encoding="utf-8")
    return Markup(f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}\n{rules}")
