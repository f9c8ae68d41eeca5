"""Coat, light and hair of the demo's animals.

Fur is noise smeared along the hair, and it pulls the outline into tufts. The palettes are the same
for both kinds, so that colour does not tell the class.
"""

from typing import Any

import numpy as np
from PIL import Image

from catdog_jax.photos.demo.animals import Ball, Breed, Kind, unit
from catdog_jax.photos.demo.camera import View

PALETTES = (  # the main and the second colour of a coat; the same for both kinds
    ((196, 124, 62), (244, 222, 190)),  # ginger
    ((44, 41, 42), (236, 232, 226)),  # black and white
    ((122, 122, 128), (226, 226, 222)),  # grey
    ((226, 202, 164), (98, 70, 52)),  # cream with brown
    ((104, 70, 46), (222, 192, 152)),  # chocolate
    ((236, 231, 223), (58, 52, 52)),  # white and black
    ((178, 142, 102), (66, 52, 44)),  # fawn
)
PATTERNS = {
    "cat": ("solid", "striped", "striped", "tuxedo", "points", "patches"),
    "dog": ("solid", "striped", "tuxedo", "points", "patches", "spots", "saddle"),
}
EYES = {
    "cat": ((150, 176, 70), (206, 166, 50), (110, 160, 190), (190, 110, 40)),
    "dog": ((84, 50, 26), (128, 80, 36), (130, 166, 196), (60, 40, 28)),
}
FURRY = ("skull", "muzzle", "ear", "torso", "chest", "leg", "paw", "tail")
BARE = {
    "inner": (200, 146, 136),
    "ink": (38, 28, 28),
    "nose": (46, 36, 38),
    "tongue": (226, 118, 124),
    "whisker": (236,) * 3,
}
REGIONS = (*FURRY, *BARE, "eye", "collar")


def blur(values: np.ndarray, radius: float) -> np.ndarray:
    """Smooths [H, W] or [H, W, C] by shrinking and enlarging it."""
    if values.ndim == 3:
        return np.dstack([blur(plane, radius) for plane in np.moveaxis(values, 2, 0)])
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(image.reduce(max(1, round(radius))).resize(image.size, Image.Resampling.BILINEAR))


def noise(shape: tuple[int, int], grain: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise [H, W] with a standard deviation near 1 and blobs of `grain` pixels."""
    coarse = rng.standard_normal([int(side / grain) + 2 for side in shape], np.float32)
    return np.asarray(Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _grain(places: np.ndarray, frequency: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise with a standard deviation near 1 at places [P, 3] in space: a sum of plane waves."""
    waves, phases = rng.normal(0, frequency, (3, 5)), rng.uniform(0, 6.3, 5)
    return np.sin(places @ waves.astype(np.float32) + phases.astype(np.float32)).sum(1) / np.float32(1.6)


def ramp(values: np.ndarray, width: float) -> np.ndarray:
    """0 below -width, 1 above width, linear between."""
    return np.clip(values / (2 * width) + 0.5, 0, 1)


def _coat(kind: Kind, regions: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The colour of the fur [P, 3], for regions [P] and places [P, 3] in the animal's coordinates."""
    main, second = np.array(PALETTES[rng.integers(len(PALETTES))], np.float32)
    pattern = PATTERNS[kind][rng.integers(len(PATTERNS[kind]))]
    wobble, (x, y, z) = _grain(places, 1.2, rng), places.T

    def on(*names: str) -> np.ndarray:
        return np.isin(regions, [REGIONS.index(name) for name in names])

    pale = on("chest", "muzzle", "paw")
    share = {
        "tuxedo": lambda: np.maximum(0.95 * pale, ramp(0.35 - np.abs(x) + 0.1 * wobble, 0.08) * on("skull")),
        "points": lambda: 0.9 * on("ear", "muzzle", "paw", "tail") + 0.3 * on("leg"),
        "patches": lambda: ramp(wobble - 0.2, 0.08),
        "spots": lambda: ramp(_grain(places, 4.0, rng) - 0.9, 0.15),
        "saddle": lambda: np.where(on("torso", "ear", "tail"), 0, ramp(0.6 + 0.6 * wobble, 0.3)),
    }.get(pattern, lambda: 0.45 * pale)()
    colour = main + (second - main) * share[:, None].astype(np.float32)
    if pattern == "striped":
        lines = np.sin(rng.uniform(7, 11) * (z + 0.5 * y * on("leg", "tail", "skull") + 0.6 * np.abs(x)) + 1.3 * wobble)
        colour *= 1 - 0.55 * (ramp(lines - 0.2, 0.35) * ~pale)[:, None]
    return colour * (1 + 0.07 * _grain(places, 3.0, rng))[:, None]


def _eyes(kind: Kind, local: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The colour of the eyes [P, 3] at points [P, 3] of the unit sphere: a slit and almond lids, or a round pupil."""
    iris = np.array(EYES[kind][rng.integers(len(EYES[kind]))], np.float32)
    x, y, radius = local[:, 0], local[:, 1], np.hypot(local[:, 0], local[:, 1])
    if kind == "cat":
        pupil, lid = rng.uniform(0.12, 0.32) * (1 - y * y) - np.abs(x), np.abs(y - 0.2 * x) + 0.3 * x * x - 0.8
    else:
        pupil, lid = 0.42 - radius, radius - 0.85
    return iris * ((1.15 - 0.5 * radius - 0.25 * y) * (1 - ramp(pupil, 0.05)) * (1 - ramp(lid, 0.07)))[:, None] + 12


def _paint(
    figure: list[Ball], kind: Kind, part: np.ndarray, regions: np.ndarray, local: np.ndarray, rng: Any
) -> np.ndarray:
    """The colour [P, 3] of the surface at points `local` [P, 3] of the unit spheres of the balls `part` [P]."""
    places = np.einsum("pij,pj->pi", np.array([ball.axes for ball in figure], np.float32)[part], local)
    colour = _coat(kind, regions, places + np.array([ball.centre for ball in figure], np.float32)[part], rng)
    paints = {**BARE, "collar": rng.integers(30, 220, 3)}
    if kind == "cat" and rng.random() < 0.6:
        paints["nose"] = (205, 125, 118)
    for name, paint in paints.items():
        colour[regions == REGIONS.index(name)] = paint
    eye = regions == REGIONS.index("eye")
    colour[eye] = _eyes(kind, local[eye], rng)
    return colour


def render(view: View, breed: Breed, light: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The animal before combing: colours [H, W, 3] in 0..255, and its hair [H, W, 3]: direction (x, y) and length."""
    seen = np.nonzero(view.part >= 0)
    part, scale = view.part[seen], view.scale
    regions = np.array([REGIONS.index(ball.region) for ball in view.figure])[part]
    eye, wet, furry = regions == REGIONS.index("eye"), regions == REGIONS.index("nose"), regions < len(FURRY)

    def spread(values: np.ndarray) -> np.ndarray:
        plane = np.zeros((*view.part.shape, *values.shape[1:]), np.float32)
        plane[seen] = values
        return plane

    def around(values: np.ndarray, radius: float) -> np.ndarray:
        """The mean of `values` [P] over the animal's pixels nearby: [H, W]."""
        return blur(spread(values), radius) / np.maximum(blur(spread(np.ones(len(part))), radius), 0.05)

    inverse = np.linalg.inv(view.axes)[part]
    surface = np.stack([*seen[::-1], view.depth[seen]], 1).astype(np.float32)
    local = np.einsum("pij,pj->pi", inverse, surface - view.centres[part])
    facing = unit(np.einsum("pij,pi->pj", inverse, local))
    colour = _paint(view.figure, breed.kind, part, regions, local, rng)

    normal = np.where((eye | wet)[:, None], facing, unit(blur(spread(facing), 0.06 * scale + 2)[seen]))
    hollow = np.clip((around(surface[:, 2], 0.3 * scale)[seen] - surface[:, 2]) / scale, 0, 0.6)
    bright = 0.42 + 0.68 * np.maximum(normal @ light, 0) - 0.5 * hollow + 0.2 * (1 - normal[:, 2]) ** 3
    shine = np.maximum(normal @ unit(np.add(light, (0, 0, 1.2))), 0) ** 40
    colour = colour * bright[:, None] + 190 * np.where(eye, shine > 0.6, 0.45 * shine * wet)[:, None]

    comb = blur(spread(view.combs[part][:, :2] + 0.8 * normal[:, :2] + (0, 0.25)), 8)
    length = around(furry, 4) * breed.fur * scale
    length[seen] *= furry
    return spread(colour), np.dstack([unit(comb), length])


def groom(colour: np.ndarray, hair: np.ndarray, cover: np.ndarray, curly: bool, rng: np.random.Generator) -> np.ndarray:
    """Lays the hair: [H, W, 4], colours and coverage in 0..255.

    Noise is smeared along the hair (line integral convolution, Cabral & Leedom 1993). It lightens
    and darkens the coat, and every pixel is fetched from further down its hair, so that colours and
    the outline run into tufts.
    """
    x, y, length = np.moveaxis(hair, 2, 0)
    home = np.arange(cover.size).reshape(cover.shape)

    def along(step: Any) -> np.ndarray:
        return home + np.rint(step * y).astype(int) * cover.shape[1] + np.rint(step * x).astype(int)

    if curly:
        strands = noise(cover.shape, 5, rng) + 0.5 * noise(cover.shape, 2, rng)
    else:
        grains = noise(cover.shape, 1.4, rng)
        strands = np.add.reduce([grains.take(along(1.4 * step), mode="wrap") for step in range(6)]) / 2.4
    strands += 0.3 * noise(cover.shape, 12, rng)
    source = along(-np.clip(0.5 + 0.5 * strands, 0, 1.6) * length)
    animal = np.dstack([colour, np.float32(255) * cover]).reshape(-1, 4).take(source, axis=0, mode="wrap")
    relief = (strands * np.minimum(length, 2) / 2)[..., None]
    animal[..., :3] += relief * (0.14 * animal[..., :3] + 5)
    return animal
