"""Perceptual hashes of photos, and which of them may be copies, without comparing all pairs.

All pairs of 100,000 photos would be 5 billion comparisons. Only photos whose hashes share a band
are compared (multi-index hashing: Norouzi et al., "Fast Search in Hamming Space with Multi-Index
Hashing", 2012).
"""

import numpy as np

GREY = 32  # width and height of the small grey picture
BITS, BANDS = 120, 10  # two photos that differ in fewer bits than there are bands share a band for certain
WINDOW = 256  # neighbours that a hash is compared with in a band: what keeps the worst case linear
MAX_DISTANCE = 24  # bits; of 200,000 random pairs of photos of Dogs vs Cats none differs in fewer than 38
_CHUNK = 4096  # photos that are computed at once


def hashes(grey: np.ndarray) -> np.ndarray:
    """Perceptual hashes, bool [N, BITS], of pictures, uint8 [N, GREY, GREY].

    They are the signs of the lowest cosine coefficients of a picture added to its mirror image.

    A photo and its mirror image have the same hash. Bits are in order of frequency, so that the
    first bands survive most.
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
    than many different ones. Each pair is there once: int64 [pairs, 2], ascending.
    """
    packed = np.pad(np.packbits(bits, axis=1), ((0, 0), (0, -BITS // 8 % 8))).view(np.uint64)
    _, first, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    alike = np.stack([first[which], np.arange(len(bits))], axis=1)
    pairs = [alike[alike[:, 0] != alike[:, 1]].astype(np.int64)]
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
            first_of, second_of = order[places], order[places + step]
            near = np.bitwise_count(packed[first_of] ^ packed[second_of]).sum(axis=1) <= MAX_DISTANCE
            pairs.append(np.stack([first_of[near], second_of[near]], axis=1))
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)
