"""The pieces of the pages that this project writes: self-contained HTML that follows the reader's light or dark mode.

Names of photos and classes come from strangers: every one is escaped, and the page's content
security policy admits no script and nothing from outside.
"""

import base64
import html
import io
from collections.abc import Iterable, Sequence

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


def page(title: str, header: str, sections: Iterable[str]) -> str:
    """A whole page as one HTML document, of a title and parts that are HTML already."""
    parts = {"title": title, "header": header, "sections": "\n".join(sections)}
    of_others = {name: part.replace(sealed.SEAL, sealed.SEAL.replace(":", "&#58;")) for name, part in parts.items()}
    return _PAGE.format(**of_others, style=_stylesheet(), seal=sealed.UNSEALED, version=__version__)


def with_seal(document: str) -> bytes:
    """The bytes of a page, with a seal that `catdog verify` checks; ids that are not UTF-8 are escaped."""
    return sealed.seal(document.encode("utf-8", "backslashreplace"))


def text(value: object) -> str:
    """Anything as HTML that says just that."""
    return html.escape(str(value))


def code(name: str) -> str:
    """A name as code that may break after a slash."""
    return f"<code>{text(name).replace('/', '/<wbr>')}</code>"


def section(title: str, body: str) -> str:
    """A part of the page under a heading, both HTML already."""
    return f"<section><h2>{title}</h2>{body}</section>"


def table(rows: Iterable[str], head: Sequence[str] = (), caption: str = "", kind: str = "") -> str:
    """A table of rows that are cells already; the first column of the head is the rows' own."""
    parts = [f"<caption>{caption}</caption>"] if caption else []
    if head:
        cells = (f'<th scope="col">{name}</th>' if name else "<td></td>" for name in head)
        parts.append(f"<thead><tr>{''.join(cells)}</tr></thead>")
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<table class="{kind}">{"".join(parts)}<tbody>{body}</tbody></table>'


def jpeg(image: Image.Image) -> bytes:
    """A picture as a small JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85, optimize=True)
    return buffer.getvalue()


def picture(thumbnail: bytes | None, size: tuple[int, int], described: str) -> str:
    """A JPEG within the page, or a frame that says that there is none."""
    if thumbnail is None:
        return '<span class="missing">no photo</span>'
    source = f"data:image/jpeg;base64,{base64.b64encode(thumbnail).decode()}"
    return f'<img src="{source}" width="{size[0]}" height="{size[1]}" alt="{text(described)}">'


def _stylesheet() -> str:
    light, dark = ("".join(f"--{name}:{pair[mode]};" for name, pair in PALETTE.items()) for mode in (0, 1))
    return f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}{_CSS}"


_CSS = """
*{box-sizing:border-box}
body{margin:0 auto;max-width:68rem;padding:3rem 1.25rem 4rem;background:var(--paper);color:var(--ink);
 font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;font-variant-numeric:tabular-nums}
header>p:first-child{margin:0;color:var(--muted);font-size:.8rem;letter-spacing:.08em;text-transform:uppercase}
h1{margin:.2rem 0 .3rem;font-size:2.25rem;line-height:1.15;letter-spacing:-.02em;overflow-wrap:anywhere}
h2{margin:0 0 .9rem;font-size:1.15rem;letter-spacing:-.01em}
p{margin:0 0 1rem;overflow-wrap:anywhere}
section{margin-top:2.75rem;min-width:0}
small,caption,figcaption,footer{color:var(--muted);font-size:.82rem;font-weight:400;line-height:1.45}
small,figcaption code{display:block}
code{overflow-wrap:anywhere;unicode-bidi:isolate;font:.78rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
footer{margin-top:3.5rem}
.note{padding-left:.8rem;border-left:3px solid var(--error)}
.pair{display:grid;grid-template-columns:1fr 1fr;column-gap:3rem}

.cards{display:grid;grid-template-columns:repeat(4,1fr);gap:.9rem;margin:1.75rem 0 0}
.card{padding:1rem 1.1rem;background:var(--card);border:1px solid var(--line);border-radius:.6rem}
.card :is(dt,dd){margin:0;color:var(--muted);font-size:.82rem}
.card dt+dd{color:var(--ink);font-size:1.75rem;font-weight:600;letter-spacing:-.02em;line-height:1.35}

table{width:100%;border-collapse:collapse}
caption{padding-bottom:.6rem;text-align:left}
th,td{padding:.5rem .75rem .5rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;font-weight:400}
thead th{font-size:.85rem}
.metrics tbody th{font-weight:600}
.metrics :is(td,th+th){text-align:right}
.metrics td small{white-space:nowrap}
.metrics :is(td,th):last-child{padding-right:0}
.confusion{border-collapse:separate;border-spacing:.3rem;table-layout:fixed}
.confusion :is(td,th){padding:.4rem;border:0;overflow-wrap:anywhere;vertical-align:middle}
.confusion th+th,.confusion thead th{text-align:center}
.confusion tbody td{padding:2.2rem .4rem;border-radius:.4rem;text-align:center;font-size:1.5rem;font-weight:600;line-height:1.3;
 background:color-mix(in srgb,var(--tint) calc(10% + 25%*var(--share)),var(--card))}
.right{--tint:var(--accent)}
.wrong{--tint:var(--error)}

figure{margin:0}
svg{display:block;width:100%;height:auto}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.25rem,1fr));gap:1.4rem 1rem;
 margin:0;padding:0;list-style:none}
.gallery :is(img,.missing){display:grid;place-items:center;width:100%;max-width:160px;height:auto;aspect-ratio:1;
 margin-bottom:.45rem;border-radius:.4rem}
.frame{display:grid;place-items:center;max-width:160px;aspect-ratio:1;margin-bottom:.45rem;overflow:hidden;
 background:var(--card);border:1px solid var(--line);border-radius:.4rem}
.frame :is(img,.missing){width:auto;max-width:100%;height:auto;max-height:100%;aspect-ratio:auto;
 margin:0;border-radius:0;border:0}
.groups{display:grid;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr));gap:1.6rem 1.2rem;margin:0;
 padding:0;list-style:none}
.groups p{margin:0 0 .5rem}
.groups b{color:var(--error)}
.side{display:flex;flex-wrap:wrap;gap:.5rem}
.side figure{width:9.75rem;min-width:0}
.missing{border:1px dashed var(--line);color:var(--muted);font-size:.82rem}
.gallery b{color:var(--error)}

details{border-top:1px solid var(--line)}
details:last-child{border-bottom:1px solid var(--line)}
details table{margin:0 0 1.2rem;table-layout:fixed}
details th{width:30%;color:var(--muted);font-size:.85rem;overflow-wrap:anywhere}
summary{padding:.6rem 0;cursor:pointer}

@media(max-width:46rem){
 body{padding-top:1.75rem}
 h1{font-size:1.8rem}
 .cards{grid-template-columns:1fr 1fr}
 .card dt+dd{font-size:1.4rem}
 .pair{display:block}
 .gallery{grid-template-columns:1fr 1fr}
}
@media print{body{max-width:none;padding:0}section,li{break-inside:avoid}}
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="seal" content="{seal}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{header}
<main>
{sections}
</main>
<footer>catdog_jax {version}</footer>
</body>
</html>
"""
