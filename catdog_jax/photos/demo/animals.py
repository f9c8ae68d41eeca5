"""The animals of the demo set as figures: some 150 ellipsoids ("balls") in space each, posed.

Cats and dogs differ in shape: ears, muzzle, eyes, nose, tail, proportions. Lengths are in head
radii.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

Kind = Literal["cat", "dog"]
KINDS: tuple[Kind, Kind] = ("cat", "dog")


class Breed(NamedTuple):
    """The shape of an animal. Lengths are in head radii; x is to its side, y up, z where it looks."""

    kind: Kind
    name: str
    ear: Literal["pointed", "floppy", "folded", "pricked"]
    ear_size: float
    skull: tuple[float, float, float]
    muzzle: float  # how far it stands out
    snout: float  # its radius
    eye: float
    leg: float
    torso: float
    girth: float
    tail: tuple[float, float]  # length and radius
    fur: float
    curly: bool = False


BREEDS = (
    Breed("cat", "shorthair", "pointed", 1.00, (1.00, 0.86, 0.90), 0.10, 0.27, 0.27, 1.9, 2.7, 0.85, (3.2, 0.17), 0.08),
    Breed("cat", "persian", "pointed", 0.75, (1.12, 0.92, 0.88), 0.00, 0.28, 0.28, 1.4, 2.4, 1.05, (2.4, 0.33), 0.20),
    Breed("cat", "siamese", "pointed", 1.20, (0.90, 0.86, 0.92), 0.20, 0.23, 0.25, 2.1, 2.8, 0.72, (3.4, 0.13), 0.05),
    Breed(
        "cat", "forest cat", "pointed", 1.15, (1.00, 0.88, 0.92), 0.14, 0.29, 0.25, 1.9, 3.0, 0.98, (3.2, 0.32), 0.18
    ),
    Breed("cat", "kitten", "pointed", 1.00, (1.00, 0.88, 0.88), 0.04, 0.24, 0.31, 1.2, 1.8, 0.72, (2.0, 0.15), 0.10),
    Breed("dog", "labrador", "floppy", 0.85, (0.92, 0.88, 0.95), 0.75, 0.46, 0.17, 2.2, 3.0, 0.98, (2.2, 0.22), 0.07),
    Breed("dog", "beagle", "floppy", 1.15, (0.88, 0.85, 0.92), 0.65, 0.40, 0.18, 1.7, 2.6, 0.88, (1.6, 0.16), 0.05),
    Breed("dog", "dachshund", "floppy", 1.10, (0.84, 0.78, 0.92), 0.95, 0.36, 0.17, 0.8, 3.8, 0.78, (1.8, 0.14), 0.05),
    Breed("dog", "husky", "pricked", 0.80, (0.98, 0.90, 0.95), 0.60, 0.38, 0.17, 2.1, 2.8, 1.00, (2.2, 0.34), 0.14),
    Breed(
        "dog", "poodle", "floppy", 1.00, (0.90, 1.00, 0.90), 0.70, 0.34, 0.18, 2.0, 2.3, 0.90, (1.2, 0.30), 0.14, True
    ),
    Breed("dog", "terrier", "folded", 0.80, (0.88, 0.86, 0.90), 0.55, 0.42, 0.17, 1.6, 2.3, 0.82, (1.2, 0.20), 0.17),
    Breed("dog", "pug", "folded", 0.70, (1.02, 0.92, 0.88), 0.22, 0.44, 0.21, 1.4, 2.2, 0.98, (1.0, 0.16), 0.05),
)
POSES = ("portrait", "portrait", "sitting", "standing", "lying")


class Ball(NamedTuple):
    """An ellipsoid: its region, centre [3], semi-axes in the columns of [3, 3], and the direction of its hair [3]."""

    region: str
    centre: np.ndarray
    axes: np.ndarray
    comb: np.ndarray


def _ball(region: str, centre: Any, radii: Any, comb: Any = (0, 0, 0)) -> list[Ball]:
    return [
        Ball(
            region, np.array(centre, float), np.diag(np.broadcast_to(np.array(radii, float), 3)), np.array(comb, float)
        )
    ]


def _sweep(region: str, points: Any, radii: Any, flat: Any = (1, 1, 1)) -> list[Ball]:
    """Balls along a Bezier curve, with a radius that runs through `radii`; `flat` squashes each ball."""
    level = np.array(points, float)
    length = np.linalg.norm(np.diff(level, axis=0), axis=1).sum()
    t = np.linspace(0, 1, int(np.clip(2.2 * length / (np.mean(radii) * min(flat)), 4, 16)))
    level = np.repeat(level[:, None], len(t), axis=1)
    while len(level) > 1:  # de Casteljau
        level = (1 - t[:, None]) * level[:-1] + t[:, None] * level[1:]
    widths = np.interp(t * (len(radii) - 1), np.arange(len(radii)), radii)
    combs = unit(np.gradient(level[0], axis=0))
    return [ball for row in zip(level[0], np.outer(widths, flat), combs, strict=True) for ball in _ball(region, *row)]


def _rod(region: str, start: np.ndarray, end: np.ndarray, radius: float) -> list[Ball]:
    along = (end - start) / 2
    across = radius * unit(np.cross(along, (0.3, 0.5, 0.8)))
    axes = np.stack([along, across, np.cross(unit(along), across)], axis=1)
    return [Ball(region, (start + end) / 2, axes, np.zeros(3))]


def moved(balls: list[Ball], matrix: np.ndarray, offset: Any = 0.0) -> list[Ball]:
    """The balls turned (or mirrored) about the origin, then shifted."""
    return [Ball(b.region, matrix @ b.centre + offset, matrix @ b.axes, matrix @ b.comb) for b in balls]


def _both(balls: list[Ball]) -> list[Ball]:
    """The balls and their mirror image on the animal's other side."""
    return balls + moved(balls, np.diag((-1, 1, 1)))


def rotation(axis: int, degrees: float) -> np.ndarray:
    """The 3x3 matrix of a rotation about x (0), y (1) or z (2)."""
    i, j, matrix = (axis + 1) % 3, (axis + 2) % 3, np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(np.radians(degrees))
    matrix[j, i] = np.sin(np.radians(degrees))
    matrix[i, j] = -matrix[j, i]
    return matrix


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors [..., D] at length 1."""
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-9)


def head_of(breed: Breed, rng: np.random.Generator) -> list[Ball]:
    """A head around the origin that looks along z."""
    if breed.kind == "cat":
        x, y, shape, face = 0.45, 0.06, breed.eye * np.array((1.1, 0.88, 0.5)), _cat_face(breed, rng)
    else:
        x, y, shape, face = 0.40, 0.18, breed.eye * np.array((1.0, 1.0, 0.7)), _dog_face(breed, rng)
    eye = _ball("ink", (0, 0, 0), shape * (1.1, 1.12, 0.7)) + _ball("eye", (0, 0, 0), shape)
    place = np.multiply(breed.skull, (x, y, np.sqrt(1 - x * x - y * y) - 0.02))
    eye = moved(eye, rotation(1, 22) @ rotation(0, -5), place)
    return _ball("skull", (0, 0, 0), breed.skull) + _both(eye + _ear(breed, rng)) + face


def _cat_face(breed: Breed, rng: np.random.Generator) -> list[Ball]:
    d, s = breed.skull[2], breed.snout
    front = 0.78 * d + breed.muzzle
    half = _ball("skull", (0.48, -0.32, 0.3), (0.48, 0.42, 0.5), (0.6, -0.4, 0))
    half += _ball("muzzle", (0.75 * s, -0.40, front), (s, 0.78 * s, s))
    half += _sweep("ink", [(0, -0.5, front + 0.2), (0.1, -0.6, front + 0.2), (0.3, -0.55, front + 0.16)], (0.025, 0.02))
    for number in range(5):
        start, droop = np.array((0.9 * s, -0.36 - 0.05 * (number % 3), front + 0.1)), rng.uniform(-0.45, 0.25)
        middle = np.add(start, (0.7, 0.5 * droop + 0.08, 0.1))
        end = np.add(middle, (0.6, 0.9 * droop - 0.1, -0.1))
        half += _rod("whisker", start, middle, 0.015) + _rod("whisker", middle, end, 0.011)
    ridge = _sweep("skull", [(0, 0.15, 0.8 * d), (0, -0.2, front + 0.05)], (0.28, 0.17))
    ridge += _ball("muzzle", (0, -0.6, front - 0.05), 0.8 * s)
    nose = _sweep("nose", [(0, -0.2, front + 0.2), (0, -0.29, front + 0.2)], (0.13, 0.05), (1, 0.5, 0.6))
    return _both(half) + ridge + nose + _sweep("ink", [(0, -0.3, front + 0.21), (0, -0.5, front + 0.2)], (0.025, 0.025))


def _dog_face(breed: Breed, rng: np.random.Generator) -> list[Ball]:
    d, s = breed.skull[2], breed.snout
    tip, agape = 0.7 * d + breed.muzzle, rng.choice([0.0, 0.12, 0.25])
    half = _ball("skull", (0.38, 0.4, 0.62 * d), 0.3, (0.3, 0.5, 0))
    half += _sweep("muzzle", [(0.6 * s, -0.38, 0.5), (0.5 * s, -0.46, tip)], (0.65 * s, 0.5 * s))
    lip = np.array(
        [(0.9 * s, -0.5 * s, 0.5 * tip), (0.6 * s, 0.05 - 0.5 * s, tip), (0, 0.15 - 0.45 * s, tip + 0.6 * s)]
    )
    half += moved(_rod("ink", lip[0], lip[1], 0.04) + _rod("ink", lip[1], lip[2], 0.04), np.eye(3), (0, -0.5, 0))
    half += _ball("ink", (0.09, -0.16, tip + 0.78 * s + 0.1), (0.05, 0.04, 0.05))
    snout = _sweep("muzzle", [(0, -0.12, 0.45 * d), (0, -0.3, tip)], (1.1 * s, 0.78 * s), (1, 0.85, 1))
    snout += _sweep("muzzle", [(0, -0.55, 0.3), (0, -0.62 - agape, tip - 0.1)], (0.75 * s, 0.5 * s))
    snout += _ball("nose", (0, -0.13, tip + 0.7 * s), (0.24, 0.17, 0.17))
    snout += _sweep("ink", [(0, -0.25, tip + 0.76 * s), (0, -0.35 - 0.4 * s, tip + 0.66 * s)], (0.03, 0.03))
    if agape and rng.random() < 0.8:
        end = (rng.uniform(-0.1, 0.1), -0.7 - rng.uniform(0.25, 0.6), tip + 0.2)
        snout += _sweep("tongue", [(0, -0.55, tip - 0.2), (0, -0.55, tip + 0.55), end], (0.2, 0.2, 0.17), (1, 0.7, 0.5))
    return _both(half) + snout


def _ear(breed: Breed, rng: np.random.Generator) -> list[Ball]:
    size, tilt = breed.ear_size * rng.uniform(0.9, 1.1), rng.uniform(-0.08, 0.1)
    scale = (*breed.skull[:2], 1)
    if breed.ear == "floppy":
        curve = [
            (0.6, 0.72, -0.1),
            (1.2 + tilt, 0.85, -0.1),
            (1.2 + tilt, 0.3 - 0.6 * size, 0.1),
            (1.1, 0.4 - 1.2 * size, 0.1),
        ]
        return _sweep("ear", np.multiply(curve, scale), (0.22, 0.36, 0.42, 0.26), (0.45, 1, 0.9))
    if breed.ear == "folded":
        curve = [(0.6, 0.6, -0.1), (0.85 + tilt, 1.25 + 0.3 * size, 0), (1.0 + tilt, 0.75, 0.45)]
        return _sweep("ear", np.multiply(curve, scale), (0.36, 0.32, 0.06), (0.9, 0.9, 0.5))
    wide, blunt = (0.50, 0.03) if breed.ear == "pointed" else (0.38, 0.14)
    root, tip = np.multiply([(0.56, 0.45, -0.1), (0.82 + tilt, 0.6 + 0.95 * size, -0.15)], scale)
    inner = _sweep("inner", [root, root + 0.8 * (tip - root)], (0.6 * wide, 0.8 * blunt), (1, 1, 0.4))
    return _sweep("ear", [root, tip], (wide, blunt), (1, 1, 0.4)) + moved(inner, np.eye(3), (0, 0, 0.15))


def _leg(points: Any, radii: Any) -> list[Ball]:
    """A leg that ends in a paw on the ground."""
    return _sweep("leg", points, radii) + _ball(
        "paw", np.add(points[-1], (0, 0, 0.12)), (0.25, 0.17, 0.33), (0, -0.2, 1)
    )


def _standing(g: float, t: float, r: float, rng: np.random.Generator) -> tuple[list[Ball], Any, Any]:
    """Each pose: balls above the ground y = 0, and where neck and tail begin; g, t, r are the leg, the torso and its radius."""
    top = g + 0.8 * r
    balls = _sweep("torso", [(0, top, 0), (0, top - 0.15, -t / 2), (0, top + 0.05, -t)], (r, 0.92 * r, 0.9 * r))
    for x in (-0.5 * r, 0.5 * r):
        fore, hind = rng.uniform(-0.45, 0.45, 2) - (0, t)
        balls += _leg([(x, g + 0.3 * r, 0), (x, 0.5 * g, 0.1), (x, 0.15, fore)], (0.45, 0.27, 0.2))
        knee, hock, foot = (x, 0.6 * g, hind / 2 - t / 2 + 0.5), (x, 0.4 * g, hind - 0.6), (x, 0.15, hind - 0.1)
        balls += _leg([(x, g + 0.4 * r, -t), knee, hock, foot], (0.65, 0.45, 0.22, 0.2))
    return balls, (0, top + 0.2 * r, 0.1), (0, top + 0.45 * r, -t - 0.7 * r)


def _sitting(g: float, t: float, r: float, rng: np.random.Generator) -> tuple[list[Ball], Any, Any]:
    top, foot = 0.5 * t + 0.45 * g, rng.uniform(0.1, 0.4)
    half = _ball("leg", (0.72 * r, 0.7 * r, -0.35 * t), (0.42 * r, 0.7 * r, 0.8 * r), (0, -0.5, 0.5))
    half += _ball("paw", (0.85 * r, 0.16, -0.35 * t + 0.85 * r), (0.26, 0.17, 0.4), (0, -0.2, 1))
    half += _leg([(0.42 * r, top, 0), (0.46 * r, 0.5 * top, 0.2), (0.4 * r, 0.15, foot)], (0.42, 0.3, 0.21))
    torso = _sweep("torso", [(0, 0.9 * r, -0.5 * t), (0, 0.7 * top, -0.3 * t), (0, top, -0.1)], (1.1 * r, r, 0.85 * r))
    return torso + _both(half), (0, top, 0), (0, 0.4 * r, -0.5 * t - 0.9 * r)


def _lying(g: float, t: float, r: float, rng: np.random.Generator) -> tuple[list[Ball], Any, Any]:
    half = _ball("leg", (0.75 * r, 0.6 * r, -0.85 * t), (0.4 * r, 0.6 * r, 0.85 * r), (0, -0.3, 0.6))
    half += _ball("paw", (0.95 * r, 0.16, -0.85 * t + r), (0.24, 0.16, 0.42), (0, -0.2, 1))
    half += _leg([(0.6 * r, 0.6 * r, 0), (0.65 * r, 0.2, 0.3), (0.5 * r, 0.16, 0.6 + 0.4 * g)], (0.42, 0.3, 0.2))
    torso = _sweep("torso", [(0, 0.85 * r, 0), (0, 0.9 * r, -t / 2), (0, 0.8 * r, -t)], (0.95 * r, r, r))
    return torso + _both(half), (0, 1.05 * r, 0.1), (0, 0.6 * r, -t - 0.8 * r)


def body_of(breed: Breed, pose: str, rng: np.random.Generator) -> tuple[list[Ball], np.ndarray]:
    """The body in a pose, and where the centre of the head belongs."""
    build: Callable = {"standing": _standing, "lying": _lying}.get(pose, _sitting)
    balls, neck, rump = build(breed.leg, breed.torso, breed.girth, rng)
    head = np.add(neck, (0, 0.9 + 0.35 * breed.girth, 0.6))
    balls += _sweep("chest", [neck, head - (0, 0.3, 0.2)], (0.95 * breed.girth, 0.68, 0.62))
    if rng.random() < 0.35:
        balls += _ball("collar", 0.4 * np.array(neck) + 0.6 * head, (0.86, 0.13, 0.86))
    (long, thick), side, lift = breed.tail, rng.choice([-1, 1]), rng.uniform(0, 1)
    if breed.kind == "dog":  # up, or curled forwards
        bend = np.add(rump, (side * 0.3, 0.8 * long, -0.5 * long))
        end = np.add(bend, (side * 0.3, 0.3, 0.1 + 0.8 * lift))
    elif pose == "standing":
        bend = np.add(rump, (side * 0.2, 1.6 * lift - 1.2, -0.6 * long))
        end = np.add(bend, (side * 0.8, 0.3 + 1.9 * lift, -0.3 * long))
    else:  # on the ground, around the body
        bend = np.array((side * 2.2 * breed.girth, 0.2, rump[2] - 0.5))
        end = np.array((side * 1.6 * breed.girth, 0.2, rump[2] + 0.6 * long))
    return balls + _sweep("tail", [rump, (rump + bend) / 2, bend, end], np.array((1.1, 1, 0.85, 0.6)) * thick), head
