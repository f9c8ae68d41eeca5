"""Photos that occur more than once: exactly, by their decoded pixels, and nearly, re-encoded, resized, retouched or mirrored.

Comparing all pairs would take 5 billion comparisons for 100,000 photos. Instead each photo gets a
perceptual hash, and only photos whose hashes share a band are compared (multi-index hashing:
Norouzi et al., "Fast Search in Hamming Space with Multi-Index Hashing", 2012), first by the hash,
then by their small grey pictures, then by their VGG16 features where there are any.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from catdog_jax.auditing.file_faults import GREY, Look

BITS, BANDS = 120, 10  # two photos that differ in fewer bits than there are bands share a band for certain
WINDOW = 256  # neighbours that a hash is compared with in a band: what keeps the worst case linear
MAX_DISTANCE = 24  # bits; of 200,000 random pairs of photos of Dogs vs Cats none differs in fewer than 38
# Of grey levels; copies reach 0.966 at a quarter of the size, other pairs of one hash at most 0.88
MIN_CORRELATION = 0.95
MIN_COSINE = 0.9  # of averaged VGG16 features; copies reach 0.97, random pairs 0.49 in the median
_CHUNK = 4096  # photos, or pairs, that are computed at once


@dataclass(frozen=True)
class Group:
    """Photos that are copies of one another, directly or by way of others in the group.

    Attributes:
      rows: their places in the data set, ascending.
      exact: whether all have the same pixels.
      correlation: the lowest among the pairs that were found.
      cosine: likewise, of features; None where no pair has any.
      mirrored: whether some are mirror images of others.
    """

    rows: tuple[int, ...]
    exact: bool
    correlation: float
    cosine: float | None
    mirrored: bool


@dataclass(frozen=True)
class _Pair:
    first: int
    second: int
    correlation: float
    cosine: float | None
    mirrored: bool


def find(looks: Sequence[Look], features: Mapping[int, np.ndarray] | None = None) -> list[Group]:
    """The groups of copies in a data set, in the order of their first photos.

    Nearly uniform photos are compared exactly only: two empty pictures are alike without being
    copies.

    Args:
      looks: of `file_faults.survey`.
      features: averaged VGG16 features by the place of a photo, of those that have any; they
        confirm near-duplicates.
    """
    pairs = [_Pair(*rows, 1.0, None, False) for rows in _same_pixels(looks)]
    later = {pair.second for pair in pairs}  # their first stands for them
    uniform = {row for row, one in enumerate(looks) if any(fault.kind == "uniform" for fault in one.faults)}
    rows = np.array(
        [row for row, one in enumerate(looks) if one.grey is not None and row not in later | uniform], np.int64
    )
    if len(rows) > 1:
        grey = np.stack([one.grey for row in rows if (one := looks[row]).grey is not None])
        pairs += _confirmed(rows, candidates(hashes(grey)), grey, features or {})
    return _grouped(pairs, looks)


def _same_pixels(looks: Sequence[Look]) -> Iterator[tuple[int, int]]:
    first: dict[bytes, int] = {}
    for row, one in enumerate(looks):
        if one.pixels and first.setdefault(one.pixels, row) != row:
            yield first[one.pixels], row


def hashes(grey: np.ndarray) -> np.ndarray:
    """Perceptual hashes: the signs of the lowest cosine coefficients of a picture added to its mirror image.

    A photo and its mirror image have the same hash. Bits are in order of frequency, so that the
    first bands survive most.

    Args:
      grey: uint8 [N, GREY, GREY].

    Returns:
      bool [N, BITS].
    """
    place = np.arange(GREY)
    cosines = np.cos(np.pi * (2 * place[None] + 1) * place[:, None] / (2 * GREY)).astype(np.float32)
    frequencies = [(v, u) for v in range(GREY // 2) for u in range(0, GREY // 2, 2)]  # odd u vanish in the sum
    frequencies.sort(key=lambda vu: (vu[0] ** 2 + vu[1] ** 2, vu))
    v, u = np.array(frequencies[1 : BITS + 1]).T  # without the mean
    result = np.zeros((len(grey), BITS), bool)
    for start in range(0, len(grey), _CHUNK):
        part = grey[start : start + _CHUNK].astype(np.float32)
        spectrum = cosines[: GREY // 2] @ (part + part[:, :, ::-1]) @ cosines[: GREY // 2].T
        result[start : start + _CHUNK] = spectrum[:, v, u] > 0
    return result


def candidates(bits: np.ndarray) -> np.ndarray:
    """Pairs of hashes that share a band and differ in at most `MAX_DISTANCE` bits.

    Equal hashes make one candidate each, with the first of them, so that many alike cost no more
    than many different ones.

    Args:
      bits: bool [N, BITS].

    Returns:
      int64 [pairs, 2], ascending, each pair once.
    """
    packed = np.pad(np.packbits(bits, axis=1), ((0, 0), (0, -BITS // 8 % 8))).view(np.uint64)
    _, first, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    alike = np.stack([first[which], np.arange(len(bits))], axis=1)
    found = [alike[alike[:, 0] != alike[:, 1]].astype(np.int64)]
    width = BITS // BANDS
    for band in range(BANDS):
        keys = bits[first, band * width : (band + 1) * width] @ (1 << np.arange(width))
        order = first[np.argsort(keys, kind="stable")]
        keys = np.sort(keys)
        places = np.arange(len(keys))
        for step in range(1, WINDOW + 1):
            places = places[: np.searchsorted(places, len(keys) - step)]
            places = places[keys[places] == keys[places + step]]
            if not len(places):
                break
            one, other = order[places], order[places + step]
            near = np.bitwise_count(packed[one] ^ packed[other]).sum(axis=1) <= MAX_DISTANCE
            found.append(np.stack([one[near], other[near]], axis=1))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _confirmed(
    rows: np.ndarray, pairs: np.ndarray, grey: np.ndarray, features: Mapping[int, np.ndarray]
) -> Iterator[_Pair]:
    """The pairs whose grey pictures, and features where both have them, are alike too."""
    for start in range(0, len(pairs), _CHUNK):
        part = pairs[start : start + _CHUNK]
        one, other = grey[part[:, 0]], grey[part[:, 1]]
        straight, mirrored = correlations(one, other), correlations(one, other[:, :, ::-1])
        for index in np.flatnonzero(np.maximum(straight, mirrored) >= MIN_CORRELATION):
            first, second = rows[part[index]].tolist()
            cosine = _cosine(features[first], features[second]) if {first, second} <= features.keys() else None
            if cosine is None or cosine >= MIN_COSINE:
                best = float(max(straight[index], mirrored[index]))
                yield _Pair(first, second, best, cosine, bool(mirrored[index] > straight[index]))


def correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the grey levels of pictures, [N, GREY, GREY] each -> [N]."""
    a, b = (pictures.reshape(len(pictures), GREY * GREY).astype(np.float32) for pictures in (one, other))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    return np.minimum((a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1)), 1)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    return min(float(a @ b / np.sqrt((a @ a) * (b @ b))), 1.0)


def _grouped(pairs: Sequence[_Pair], looks: Sequence[Look]) -> list[Group]:
    """Joins pairs that share a photo."""
    parent: dict[int, int] = {}

    def root(row: int) -> int:
        while parent.setdefault(row, row) != row:
            parent[row] = row = parent[parent[row]]
        return row

    for pair in pairs:
        one, other = sorted((root(pair.first), root(pair.second)))
        parent[other] = one
    members: dict[int, list[int]] = {}
    for row in sorted(parent):
        members.setdefault(root(row), []).append(row)
    links: dict[int, list[_Pair]] = {}
    for pair in pairs:
        links.setdefault(root(pair.first), []).append(pair)
    groups = []
    for first, rows in sorted(members.items()):
        exact = len({looks[row].pixels for row in rows}) == 1
        cosines = [pair.cosine for pair in links[first] if pair.cosine is not None]
        lowest = min(pair.correlation for pair in links[first])
        mirrored = any(pair.mirrored for pair in links[first])
        groups.append(Group(tuple(rows), exact, lowest, min(cosines, default=None), mirrored))
    return groups
