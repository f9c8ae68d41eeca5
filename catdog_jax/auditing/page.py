"""audit.html: what an audit found, with the photos side by side, for eyes to judge."""

from collections.abc import Mapping, Sequence

from catdog_jax.auditing import file_faults
from catdog_jax.auditing.findings import DRIFTED, Copies, Faulty, Findings, Photo, Suspicion
from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.prefetch import map_ahead
from catdog_jax.photos.sources import Dataset, Record
from catdog_jax.reporting.html import code, jpeg, page, picture, section, table, text

SIDE = 160  # pixels of a thumbnail's longer side
SHOWN = 100  # groups of copies, and faulty files, that are shown; audit.json has all
_AHEAD = 16

Thumbnails = Mapping[str, tuple[bytes, tuple[int, int]]]  # id -> a JPEG, and its width and height


def render(found: Findings, thumbnails: Thumbnails) -> str:
    """The page as one HTML document."""
    title = text(found.source)
    sections = [
        section("Copies", _copies(found.copies, thumbnails)),
        section("Suspicious labels", _suspicions(found, thumbnails)),
        section("Drift between splits", _drift(found)),
        section("Faulty files", _faulty(found.faulty, thumbnails)),
        section("The data set", _counts(found)),
    ]
    return page(f"{title}: audit", _header(title, found), sections)


def shown(found: Findings) -> list[str]:
    """The ids of the photos that the page shows."""
    groups = [photo for group in found.copies[:SHOWN] for photo in group.photos]
    suspicious, faulty = [one.photo for one in found.suspicions], [one.photo for one in found.faulty[:SHOWN]]
    return list(dict.fromkeys(photo.id for photo in groups + suspicious + faulty))


def thumbnails(dataset: Dataset, ids: Sequence[str]) -> Thumbnails:
    """Small pictures of photos, of their own shape; what cannot be read has none."""
    wanted = set(ids)

    def thumbnail(record: Record) -> tuple[str, tuple[bytes, tuple[int, int]] | None]:
        try:
            image = decoding.load(sources.read_patiently(record)).image
        except CatdogError:
            return record.id, None
        image.thumbnail((SIDE, SIDE))
        return record.id, (jpeg(image), image.size)

    made = map_ahead(thumbnail, (record for record in dataset.records if record.id in wanted), None, _AHEAD)
    return {name: one for name, one in made if one is not None}


def _header(title: str, found: Findings) -> str:
    photos = sum(count for split in found.counts.values() for count in split.values())
    across = sum(group.across for group in found.copies)
    cards = [
        ("Faulty files", f"{len({one.photo.id for one in found.faulty}):,}", f"of {photos:,} photos"),
        ("Groups of copies", f"{len(found.copies):,}", f"{across:,} across splits"),
        ("Opposite labels", f"{sum(group.opposite for group in found.copies):,}", "groups of copies"),
        ("Suspicious labels", f"{found.suspects:,}" if found.judged else "–", f"of {found.judged:,} judged"),
    ]
    body = "".join(f'<div class="card"><dt>{name}</dt><dd>{value}</dd><dd>{of}</dd></div>' for name, value, of in cards)
    verdict = (
        "There is something to look at." if found.anything() else "Nothing was found that speaks against training."
    )
    notes = "".join(f'<p class="note">{text(note)}</p>' for note in found.notes)
    return f'<header><p>Audit of a data set</p><h1>{title}</h1><p>{verdict}</p>{notes}<dl class="cards">{body}</dl></header>'


def _figure(photo: Photo, thumbnails: Thumbnails, caption: str) -> str:
    thumbnail, size = thumbnails.get(photo.id, (None, (SIDE, SIDE)))
    shown = picture(thumbnail, size, f"Photo labelled {photo.label}")
    return f'<figure><div class="frame">{shown}</div><figcaption>{caption}{code(photo.id)}</figcaption></figure>'


def _copies(groups: Sequence[Copies], thumbnails: Thumbnails) -> str:
    if not groups:
        return "<p>None: no picture occurs twice.</p>"

    def item(group: Copies) -> str:
        marks = [
            name for name, is_so in (("opposite labels", group.opposite), ("across splits", group.across)) if is_so
        ]
        badges = f"<b>{', '.join(marks)}</b>" if marks else ""
        kind = "the same pixels" if group.exact else f"grey levels correlate by {group.correlation:.3f}"
        cosine = "" if group.cosine is None or group.exact else f", features have a cosine of {group.cosine:.3f}"
        how = kind + cosine + (", mirrored" if group.mirrored else "")
        photos = "".join(
            _figure(photo, thumbnails, f"{text(photo.label)}, {text(photo.split)}") for photo in group.photos[:SHOWN]
        )
        rest = f"<p>{len(group.photos) - SHOWN:,} more are in audit.json.</p>" if len(group.photos) > SHOWN else ""
        return f'<li><p>{badges}<small>{how}</small></p><div class="side">{photos}</div>{rest}</li>'

    intro = (
        "Opposite labels first, then copies that lie in several splits. The first of a group is the one to keep; where labels "
        "contradict each other there is none."
    )
    rest = f"<p>{len(groups) - SHOWN:,} more are in audit.json.</p>" if len(groups) > SHOWN else ""
    return f'<p>{intro}</p><ul class="groups">{"".join(map(item, groups[:SHOWN]))}</ul>{rest}'


def _suspicions(found: Findings, thumbnails: Thumbnails) -> str:
    if not found.judged:
        return "<p>Not looked at: see above.</p>"
    if not found.suspicions:
        return "<p>None: the heads agree with every label.</p>"

    def item(one: Suspicion) -> str:
        sure = f"{100 * one.probability:.2f} %" if one.probability < 0.9999 else "over 99.99 %"
        judged = f"<b>{text(one.other)}</b>" if one.suspect else text(one.other)
        caption = f"labelled {text(one.photo.label)}, {text(one.photo.split)}<br>judged {judged} {sure}"
        return f"<li>{_figure(one.photo, thumbnails, caption)}</li>"

    intro = (
        f"Each of {found.judged:,} photos was judged by a head that has not seen it, {100 * (found.accuracy or 0):.2f} % as "
        f"they are labelled. Confident learning holds {found.suspects:,} labels for wrong (their class is in bold below); the "
        "others come next in its order. A head errs too: look before you act."
    )
    return f'<p>{intro}</p><ul class="gallery">{"".join(map(item, found.suspicions))}</ul>'


def _drift(found: Findings) -> str:
    if not found.drift:
        return "<p>Not looked at: it needs features of enough photos.</p>"
    rows = (
        f'<th scope="row">{text(one.split)}</th><td>{one.auc:.3f}<small>{one.low:.3f} – {one.high:.3f}</small></td>'
        for one in found.drift
    )
    intro = (
        "How well a head tells the photos of a split from training photos, as ROC AUC with its 95 % interval. 0.5 is not at "
        f"all; an interval above {DRIFTED:g} means that the splits come from different sources."
    )
    return f"<p>{intro}</p>{table(rows, ('Split', 'ROC AUC'))}"


def _faulty(faults: Sequence[Faulty], thumbnails: Thumbnails) -> str:
    if not faults:
        return "<p>None: every file was decoded, and nothing about the pictures is odd.</p>"

    def item(one: Faulty) -> str:
        caption = f"<b>{text(one.kind)}</b>: {text(file_faults.KINDS[one.kind])}<br>{text(one.reason)}"
        return f"<li>{_figure(one.photo, thumbnails, caption)}</li>"

    rest = f"<p>{len(faults) - SHOWN:,} more are in audit.json.</p>" if len(faults) > SHOWN else ""
    return f'<ul class="gallery">{"".join(map(item, faults[:SHOWN]))}</ul>{rest}'


def _counts(found: Findings) -> str:
    rows = (
        f'<th scope="row">{split}</th>{"".join(f"<td>{by_class[name]:,}</td>" for name in found.classes)}'
        for split, by_class in found.counts.items()
    )
    return table(rows, ("Split", *map(text, found.classes)))
