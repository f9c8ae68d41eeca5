"""Draws the embedded demo data set: seeded, varied, licence-clean pictures of cats and dogs. NumPy and Pillow only.

An animal is some 150 ellipsoids ("balls") in space: a body in one of four poses, and a head that looks elsewhere. They are cast
onto the picture with a depth buffer, coloured by a coat, lit, and combed: fur is noise smeared along the hair, and it pulls the
outline into tufts. Cats and dogs differ in shape (ears, muzzle, eyes, nose, tail, proportions); palettes, poses, cameras,
backgrounds, things in front and light come from the same distributions, so that colour and composition do not tell the class.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from catdog_jax import storage
from catdog_jax.console import progress_bar
from catdog_jax.errors import CatdogError

VERSION = 1  # raised by every change that alters a picture
SPLITS = ("train", "validation", "test")
COUNTS = {"train": 80, "validation": 30, "test": 30}  # pictures of each class

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
    Breed("cat", "forest cat", "pointed", 1.15, (1.00, 0.88, 0.92), 0.14, 0.29, 0.25, 1.9, 3.0, 0.98, (3.2, 0.32), 0.18),
    Breed("cat", "kitten", "pointed", 1.00, (1.00, 0.88, 0.88), 0.04, 0.24, 0.31, 1.2, 1.8, 0.72, (2.0, 0.15), 0.10),
    Breed("dog", "labrador", "floppy", 0.85, (0.92, 0.88, 0.95), 0.75, 0.46, 0.17, 2.2, 3.0, 0.98, (2.2, 0.22), 0.07),
    Breed("dog", "beagle", "floppy", 1.15, (0.88, 0.85, 0.92), 0.65, 0.40, 0.18, 1.7, 2.6, 0.88, (1.6, 0.16), 0.05),
    Breed("dog", "dachshund", "floppy", 1.10, (0.84, 0.78, 0.92), 0.95, 0.36, 0.17, 0.8, 3.8, 0.78, (1.8, 0.14), 0.05),
    Breed("dog", "husky", "pricked", 0.80, (0.98, 0.90, 0.95), 0.60, 0.38, 0.17, 2.1, 2.8, 1.00, (2.2, 0.34), 0.14),
    Breed("dog", "poodle", "floppy", 1.00, (0.90, 1.00, 0.90), 0.70, 0.34, 0.18, 2.0, 2.3, 0.90, (1.2, 0.30), 0.14, curly=True),
    Breed("dog", "terrier", "folded", 0.80, (0.88, 0.86, 0.90), 0.55, 0.42, 0.17, 1.6, 2.3, 0.82, (1.2, 0.20), 0.17),
    Breed("dog", "pug", "folded", 0.70, (1.02, 0.92, 0.88), 0.22, 0.44, 0.21, 1.4, 2.2, 0.98, (1.0, 0.16), 0.05),
)
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
POSES = ("portrait", "portrait", "sitting", "standing", "lying")
PLACES = ("meadow", "room", "sofa", "tiles", "lights", "plain")
OBSTACLES = ("", "", "", "", "fence", "leaves", "box", "hand")
FURRY = ("skull", "muzzle", "ear", "torso", "chest", "leg", "paw", "tail")
BARE = {"inner": (200, 146, 136), "ink": (38, 28, 28), "nose": (46, 36, 38), "tongue": (226, 118, 124), "whisker": (236,) * 3}
REGIONS = (*FURRY, *BARE, "eye", "collar")


# ---- The figure ----------------------------------------------------------------------------------------------------------


class Ball(NamedTuple):
    """An ellipsoid: its region, centre [3], semi-axes in the columns of [3, 3], and the direction of its hair [3]."""

    region: str
    centre: np.ndarray
    axes: np.ndarray
    comb: np.ndarray


def _ball(region: str, centre: Any, radii: Any, comb: Any = (0, 0, 0)) -> list[Ball]:
    return [Ball(region, np.array(centre, float), np.diag(np.broadcast_to(np.array(radii, float), 3)), np.array(comb, float))]


def _sweep(region: str, points: Any, radii: Any, flat: Any = (1, 1, 1)) -> list[Ball]:
    """Balls along a Bezier curve, with a radius that runs through `radii`; `flat` squashes each ball."""
    level = np.array(points, float)
    length = np.linalg.norm(np.diff(level, axis=0), axis=1).sum()
    t = np.linspace(0, 1, int(np.clip(2.2 * length / (np.mean(radii) * min(flat)), 4, 16)))
    level = np.repeat(level[:, None], len(t), axis=1)
    while len(level) > 1:  # de Casteljau
        level = (1 - t[:, None]) * level[:-1] + t[:, None] * level[1:]
    widths = np.interp(t * (len(radii) - 1), np.arange(len(radii)), radii)
    combs = _unit(np.gradient(level[0], axis=0))
    return [ball for row in zip(level[0], np.outer(widths, flat), combs, strict=True) for ball in _ball(region, *row)]


def _rod(region: str, start: np.ndarray, end: np.ndarray, radius: float) -> list[Ball]:
    along = (end - start) / 2
    across = radius * _unit(np.cross(along, (0.3, 0.5, 0.8)))
    axes = np.stack([along, across, np.cross(_unit(along), across)], axis=1)
    return [Ball(region, (start + end) / 2, axes, np.zeros(3))]


def _moved(balls: list[Ball], matrix: np.ndarray, offset: Any = 0.0) -> list[Ball]:
    """The balls turned (or mirrored) about the origin, then shifted."""
    return [Ball(b.region, matrix @ b.centre + offset, matrix @ b.axes, matrix @ b.comb) for b in balls]


def _both(balls: list[Ball]) -> list[Ball]:
    """The balls and their mirror image on the animal's other side."""
    return balls + _moved(balls, np.diag((-1, 1, 1)))


def _rotation(axis: int, degrees: float) -> np.ndarray:
    """The 3x3 matrix of a rotation about x (0), y (1) or z (2)."""
    i, j, matrix = (axis + 1) % 3, (axis + 2) % 3, np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(np.radians(degrees))
    matrix[j, i] = np.sin(np.radians(degrees))
    matrix[i, j] = -matrix[j, i]
    return matrix


def _unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors [..., D] at length 1."""
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-9)


def _head(breed: Breed, rng: np.random.Generator) -> list[Ball]:
    """A head around the origin that looks along z."""
    if breed.kind == "cat":
        x, y, shape, face = 0.45, 0.06, breed.eye * np.array((1.1, 0.88, 0.5)), _cat_face(breed, rng)
    else:
        x, y, shape, face = 0.40, 0.18, breed.eye * np.array((1.0, 1.0, 0.7)), _dog_face(breed, rng)
    eye = _ball("ink", (0, 0, 0), shape * (1.1, 1.12, 0.7)) + _ball("eye", (0, 0, 0), shape)
    place = np.multiply(breed.skull, (x, y, np.sqrt(1 - x * x - y * y) - 0.02))
    eye = _moved(eye, _rotation(1, 22) @ _rotation(0, -5), place)
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
    lip = np.array([(0.9 * s, -0.5 * s, 0.5 * tip), (0.6 * s, 0.05 - 0.5 * s, tip), (0, 0.15 - 0.45 * s, tip + 0.6 * s)])
    half += _moved(_rod("ink", lip[0], lip[1], 0.04) + _rod("ink", lip[1], lip[2], 0.04), np.eye(3), (0, -0.5, 0))
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
        curve = [(0.6, 0.72, -0.1), (1.2 + tilt, 0.85, -0.1), (1.2 + tilt, 0.3 - 0.6 * size, 0.1), (1.1, 0.4 - 1.2 * size, 0.1)]
        return _sweep("ear", np.multiply(curve, scale), (0.22, 0.36, 0.42, 0.26), (0.45, 1, 0.9))
    if breed.ear == "folded":
        curve = [(0.6, 0.6, -0.1), (0.85 + tilt, 1.25 + 0.3 * size, 0), (1.0 + tilt, 0.75, 0.45)]
        return _sweep("ear", np.multiply(curve, scale), (0.36, 0.32, 0.06), (0.9, 0.9, 0.5))
    wide, blunt = (0.50, 0.03) if breed.ear == "pointed" else (0.38, 0.14)
    root, tip = np.multiply([(0.56, 0.45, -0.1), (0.82 + tilt, 0.6 + 0.95 * size, -0.15)], scale)
    inner = _sweep("inner", [root, root + 0.8 * (tip - root)], (0.6 * wide, 0.8 * blunt), (1, 1, 0.4))
    return _sweep("ear", [root, tip], (wide, blunt), (1, 1, 0.4)) + _moved(inner, np.eye(3), (0, 0, 0.15))


def _leg(points: Any, radii: Any) -> list[Ball]:
    """A leg that ends in a paw on the ground."""
    return _sweep("leg", points, radii) + _ball("paw", np.add(points[-1], (0, 0, 0.12)), (0.25, 0.17, 0.33), (0, -0.2, 1))


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


def _body(breed: Breed, pose: str, rng: np.random.Generator) -> tuple[list[Ball], np.ndarray]:
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


# ---- The camera ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """A figure as it falls onto the picture, in pixels: x to the right, y down, z towards the viewer.

    Attributes:
      figure: the balls in the animal's own coordinates.
      centres, axes, combs: the balls in the picture, float32 [B, 3], [B, 3, 3] and [B, 3].
      scale: pixels in a head radius.
      depth, part: the nearest surface [H, W] and the index of its ball, -1 where there is none.
    """

    figure: list[Ball]
    centres: np.ndarray
    axes: np.ndarray
    combs: np.ndarray
    scale: float
    depth: np.ndarray
    part: np.ndarray


def _photograph(breed: Breed, size: tuple[int, int], rng: np.random.Generator) -> View:
    """Poses an animal, frames it (or its head) in weak perspective, and casts it."""
    pose = POSES[rng.integers(len(POSES))]
    turn = rng.choice([-1, 1]) * (rng.uniform(0, 60) if pose in ("portrait", "sitting") else rng.uniform(30, 90))
    body, neck = _body(breed, pose, rng)
    look = rng.uniform(-40, 40) if rng.random() < 0.75 else turn  # at the viewer, mostly; else ahead
    nod = _rotation(1, look - turn) @ _rotation(0, rng.uniform(-12, 15)) @ _rotation(2, rng.normal(0, 8))
    head = _moved(_head(breed, rng), nod, neck)
    camera = np.diag((1, -1, 1)) @ _rotation(2, rng.normal(0, 5)) @ _rotation(0, rng.uniform(2, 18)) @ _rotation(1, turn)
    balls = _moved(head + body, camera)
    centres, axes, combs = (np.array(part, np.float32) for part in list(zip(*balls, strict=True))[1:])
    framed = slice(len(head)) if pose == "portrait" else slice(None)
    near = 14 / (14 + centres[framed, 2].mean() - centres[:, 2])
    centres[:, :2] *= near[:, None]
    axes *= near[:, None, None]
    reach = np.linalg.norm(axes, axis=2)
    low, high = (centres - reach)[framed, :2].min(0), (centres + reach)[framed, :2].max(0)
    scale = np.float32(rng.uniform(0.62, 1.0) * np.min(np.array(size) / (high - low)))
    target = np.array(size) * (0.5 + rng.normal(0, 0.05, 2))
    centres = ((centres - (*(low + high) / 2, 0)) * scale + (*target, 0)).astype(np.float32)
    return View(head + body, centres, axes * scale, combs, float(scale), *_cast(centres, axes * scale, size))


def _cast(centres: np.ndarray, axes: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Solves |axes^-1 (p - centre)| = 1 for the nearer z at every pixel below each ball, and keeps the nearest."""
    depth, part = np.zeros(size[::-1], np.float32), np.full(size[::-1], -1, np.int16)
    depth -= np.inf
    reach, inverse = np.linalg.norm(axes, axis=2)[:, :2], np.linalg.inv(axes)
    lows = np.maximum(np.floor(centres[:, :2] - reach), 0).astype(int)
    highs = np.minimum(np.ceil(centres[:, :2] + reach) + 1, size).astype(int)
    forms = inverse.transpose(0, 2, 1) @ inverse
    for index, ((left, top), (right, bottom)) in enumerate(zip(lows, highs, strict=True)):
        if left >= right or top >= bottom:
            continue
        x = np.arange(left, right, dtype=np.float32)[None] - centres[index, 0]
        y = np.arange(top, bottom, dtype=np.float32)[:, None] - centres[index, 1]
        (xx, xy, xz), (_, yy, yz), (_, _, zz) = forms[index]
        half = xz * x + yz * y
        root = half * half - (zz * (xx * x * x - 1) + zz * yy * y * y + (2 * zz * xy * x) * y)
        z = (np.sqrt(np.maximum(root, 0)) - half) / zz + centres[index, 2]
        window = np.s_[top:bottom, left:right]
        nearer = (root > 0) & (z > depth[window])
        np.copyto(depth[window], z, where=nearer)
        part[window][nearer] = index
    return depth, part


# ---- Coat, light and hair ------------------------------------------------------------------------------------------------


def _blur(values: np.ndarray, radius: float) -> np.ndarray:
    """Smooths [H, W] or [H, W, C] by shrinking and enlarging it."""
    if values.ndim == 3:
        return np.dstack([_blur(plane, radius) for plane in np.moveaxis(values, 2, 0)])
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(image.reduce(max(1, round(radius))).resize(image.size, Image.Resampling.BILINEAR))


def _noise(shape: tuple[int, int], grain: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise [H, W] with a standard deviation near 1 and blobs of `grain` pixels."""
    coarse = rng.standard_normal([int(side / grain) + 2 for side in shape], np.float32)
    return np.asarray(Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _grain(places: np.ndarray, frequency: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise with a standard deviation near 1 at places [P, 3] in space: a sum of plane waves."""
    waves, phases = rng.normal(0, frequency, (3, 5)), rng.uniform(0, 6.3, 5)
    return np.sin(places @ waves.astype(np.float32) + phases.astype(np.float32)).sum(1) / np.float32(1.6)


def _ramp(values: np.ndarray, width: float) -> np.ndarray:
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
        "tuxedo": lambda: np.maximum(0.95 * pale, _ramp(0.35 - np.abs(x) + 0.1 * wobble, 0.08) * on("skull")),
        "points": lambda: 0.9 * on("ear", "muzzle", "paw", "tail") + 0.3 * on("leg"),
        "patches": lambda: _ramp(wobble - 0.2, 0.08),
        "spots": lambda: _ramp(_grain(places, 4.0, rng) - 0.9, 0.15),
        "saddle": lambda: np.where(on("torso", "ear", "tail"), 0, _ramp(0.6 + 0.6 * wobble, 0.3)),
    }.get(pattern, lambda: 0.45 * pale)()
    colour = main + (second - main) * share[:, None].astype(np.float32)
    if pattern == "striped":
        lines = np.sin(rng.uniform(7, 11) * (z + 0.5 * y * on("leg", "tail", "skull") + 0.6 * np.abs(x)) + 1.3 * wobble)
        colour *= 1 - 0.55 * (_ramp(lines - 0.2, 0.35) * ~pale)[:, None]
    return colour * (1 + 0.07 * _grain(places, 3.0, rng))[:, None]


def _eyes(kind: Kind, local: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The colour of the eyes [P, 3] at points [P, 3] of the unit sphere: a slit and almond lids, or a round pupil."""
    iris = np.array(EYES[kind][rng.integers(len(EYES[kind]))], np.float32)
    x, y, radius = local[:, 0], local[:, 1], np.hypot(local[:, 0], local[:, 1])
    if kind == "cat":
        pupil, lid = rng.uniform(0.12, 0.32) * (1 - y * y) - np.abs(x), np.abs(y - 0.2 * x) + 0.3 * x * x - 0.8
    else:
        pupil, lid = 0.42 - radius, radius - 0.85
    return iris * ((1.15 - 0.5 * radius - 0.25 * y) * (1 - _ramp(pupil, 0.05)) * (1 - _ramp(lid, 0.07)))[:, None] + 12


def _paint(figure: list[Ball], kind: Kind, part: np.ndarray, regions: np.ndarray, local: np.ndarray, rng: Any) -> np.ndarray:
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


def _render(view: View, breed: Breed, light: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
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
        return _blur(spread(values), radius) / np.maximum(_blur(spread(np.ones(len(part))), radius), 0.05)

    inverse = np.linalg.inv(view.axes)[part]
    surface = np.stack([*seen[::-1], view.depth[seen]], 1).astype(np.float32)
    local = np.einsum("pij,pj->pi", inverse, surface - view.centres[part])
    facing = _unit(np.einsum("pij,pi->pj", inverse, local))
    colour = _paint(view.figure, breed.kind, part, regions, local, rng)

    normal = np.where((eye | wet)[:, None], facing, _unit(_blur(spread(facing), 0.06 * scale + 2)[seen]))
    hollow = np.clip((around(surface[:, 2], 0.3 * scale)[seen] - surface[:, 2]) / scale, 0, 0.6)
    bright = 0.42 + 0.68 * np.maximum(normal @ light, 0) - 0.5 * hollow + 0.2 * (1 - normal[:, 2]) ** 3
    shine = np.maximum(normal @ _unit(np.add(light, (0, 0, 1.2))), 0) ** 40
    colour = colour * bright[:, None] + 190 * np.where(eye, shine > 0.6, 0.45 * shine * wet)[:, None]

    comb = _blur(spread(view.combs[part][:, :2] + 0.8 * normal[:, :2] + (0, 0.25)), 8)
    length = around(furry, 4) * breed.fur * scale
    length[seen] *= furry
    return spread(colour), np.dstack([_unit(comb), length])


def _groom(colour: np.ndarray, hair: np.ndarray, cover: np.ndarray, curly: bool, rng: np.random.Generator) -> np.ndarray:
    """Lays the hair: [H, W, 4], colours and coverage in 0..255.

    Noise is smeared along the hair (line integral convolution, Cabral & Leedom 1993). It lightens and darkens the coat, and
    every pixel is fetched from further down its hair, so that colours and the outline run into tufts.
    """
    x, y, length = np.moveaxis(hair, 2, 0)
    home = np.arange(cover.size).reshape(cover.shape)

    def along(step: Any) -> np.ndarray:
        return home + np.rint(step * y).astype(int) * cover.shape[1] + np.rint(step * x).astype(int)

    if curly:
        strands = _noise(cover.shape, 5, rng) + 0.5 * _noise(cover.shape, 2, rng)
    else:
        grains = _noise(cover.shape, 1.4, rng)
        strands = np.add.reduce([grains.take(along(1.4 * step), mode="wrap") for step in range(6)]) / 2.4
    strands += 0.3 * _noise(cover.shape, 12, rng)
    source = along(-np.clip(0.5 + 0.5 * strands, 0, 1.6) * length)
    animal = np.dstack([colour, np.float32(255) * cover]).reshape(-1, 4).take(source, axis=0, mode="wrap")
    relief = (strands * np.minimum(length, 2) / 2)[..., None]
    animal[..., :3] += relief * (0.14 * animal[..., :3] + 5)
    return animal


# ---- The scene -----------------------------------------------------------------------------------------------------------


def _shade(colour: Any, factor: float = 1.0) -> tuple[int, ...]:
    return tuple(np.clip(np.multiply(colour, factor), 0, 255).astype(int).tolist())


def _muted(rng: np.random.Generator) -> np.ndarray:
    grey = rng.uniform(50, 220)
    return grey + rng.normal(0, 0.13 * grey, 3)


def _background(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A meadow, a room, a sofa, tiles, lights out of focus, or a plain backdrop."""
    (width, height), place = size, PLACES[rng.integers(len(PLACES))]
    far, near = ((150, 185, 220), (88, 122, 52)) if place == "meadow" else (_muted(rng), _muted(rng))
    horizon = rng.uniform(0.25, 0.6) if place in ("meadow", "room", "sofa") else 2.0
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    floor = _ramp(down - horizon, 0.02)
    pixels = np.multiply(far, (1.1 - 0.3 * down) * (1 - floor)) + np.multiply(near, (0.75 + 0.35 * down) * floor)
    texture = 9 * _noise((height, width), width / 5, rng) + 5 * _noise((height, width), 2, rng)
    image = Image.fromarray(np.clip(pixels + texture[..., None], 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    if place == "meadow":
        for y in np.sort(rng.uniform(horizon - 0.02, 1.1, 500)):
            x, tall = rng.uniform(0, width), height * (0.03 + 0.07 * max(y - horizon, 0))
            pen.line([x, y * height, x + rng.normal(0, tall / 3), y * height - tall], _shade(near, rng.uniform(0.6, 1.5)), 1)
    elif place == "room":
        for y in horizon * height + np.cumsum(rng.uniform(3, 15, 12)):
            pen.line([0, y, width, y], _shade(near, 0.7))
        pen.rectangle([0, (horizon - 0.04) * height, width, horizon * height], _shade(far, rng.choice([0.6, 1.3])))
    elif place == "sofa":
        for x in np.arange(rng.uniform(-0.4, 0), 1.2, 0.45) * width:
            pen.rounded_rectangle([x, 0.1 * height, x + 0.44 * width, horizon * height], 8, _shade(near, 0.85))
            pen.rounded_rectangle([x, (horizon - 0.03) * height, x + 0.44 * width, 1.05 * height], 8, _shade(near, 1.05))
    elif place == "tiles":
        pitch = rng.uniform(0.12, 0.3) * width
        for edge in np.arange(rng.uniform(-1, 0) * pitch, width + height, pitch):
            pen.line([edge, 0, edge, height], _shade(far, 0.75))
            pen.line([0, edge, width, edge], _shade(far, 0.75))
    elif place == "lights":
        for _ in range(40):
            (x, y), r = rng.uniform(0, 1, 2) * size, rng.uniform(0.02, 0.09) * width
            pen.ellipse([x - r, y - r, x + r, y + r], _shade(_muted(rng), 1.1))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.4) + (place in ("lights", "sofa"))))


def _shadow(view: View, light: np.ndarray) -> Image.Image:
    """How dark the ground is below the balls that are near it."""
    mask = Image.new("F", view.part.shape[::-1])
    pen = ImageDraw.Draw(mask)
    for (x, y, _), reach, ball in zip(view.centres, np.linalg.norm(view.axes, axis=2), view.figure, strict=True):
        if ball.centre[1] < 1.2:
            high, r = ball.centre[1] * view.scale, 1.1 * reach[0]
            x, y = x - 0.6 * light[0] * high, y + 0.9 * high
            pen.ellipse([x - r, y - 0.35 * r, x + r, y + 0.35 * r], 150)
    return Image.fromarray(_blur(np.asarray(mask), 0.3 * view.scale).astype(np.uint8))


def _obstruct(image: Image.Image, rng: np.random.Generator) -> None:
    """Now and then draws something in front: a fence, leaves, a box, or a hand."""
    (width, height), thing = image.size, OBSTACLES[rng.integers(len(OBSTACLES))]
    pen, colour = ImageDraw.Draw(image), _shade(_muted(rng))
    if thing == "fence":
        gap, thick = rng.uniform(0.22, 0.34) * width, rng.uniform(3, 6)
        for x in np.arange(rng.uniform(0, 1) * gap, width, gap):
            pen.rectangle([x, 0, x + thick, height], colour)
    elif thing == "leaves":
        corner = np.array([rng.choice([0, width]), rng.choice([0.3, 1.0]) * height])
        for _ in range(9):
            tip = corner + (np.array(image.size) / 2 - corner) * rng.uniform(0.3, 0.8) + rng.normal(0, 0.15 * width, 2)
            middle, side = (tip + corner) / 2, np.array([-0.13, 0.13]) * (tip - corner)[::-1]
            pen.polygon([*corner, *(middle + side), *tip, *(middle - side)], _shade((60, 110, 50), rng.uniform(0.6, 1.4)))
    elif thing == "box":
        pen.rectangle([-9, rng.uniform(0.72, 0.88) * height, width + 9, height + 9], colour, _shade(colour, 0.7), 4)
    elif thing == "hand":
        x, y, r = rng.uniform(0.1, 0.9) * width, rng.uniform(0.6, 0.9) * height, 0.1 * width
        skin = _shade((205, 155, 125), rng.uniform(0.4, 1.1))
        pen.line([x, y, x + rng.normal(0, r), 1.2 * height], skin, round(1.5 * r))
        for finger in np.linspace(-1, 1, 4):
            pen.line([x + 0.6 * finger * r, y, x + 1.2 * finger * r, y - (1.7 - finger**2 / 2) * r], skin, round(0.5 * r))
        pen.ellipse([x - r, y - r, x + r, y + r], skin)


def _develop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blur, contrast, a colour cast, exposure and noise."""
    pixels = np.asarray(image.filter(ImageFilter.BoxBlur(0.3 + rng.exponential(0.25))), np.float32) - 120
    pixels = pixels * (rng.uniform(0.7, 1.25) * rng.normal(1, 0.06, 3)).astype(np.float32) + np.float32(120 + rng.normal(0, 16))
    pixels += rng.uniform(1, 7) * rng.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _scene(kind: Kind, rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    breeds = [breed for breed in BREEDS if breed.kind == kind]
    breed = breeds[rng.integers(len(breeds))]
    light = _unit(np.array([rng.uniform(-0.8, 0.8), rng.uniform(-1.0, -0.3), rng.uniform(0.4, 1.0)], np.float32))
    view = _photograph(breed, size, rng)
    animal = _groom(*_render(view, breed, light, rng), view.part >= 0, breed.curly, rng)
    image = _background((size[0] // 2, size[1] // 2), rng).resize(size, Image.Resampling.BICUBIC)  # out of focus
    image.paste((20, 18, 16), mask=_shadow(view, light))
    layer = Image.fromarray(np.clip(animal, 0, 255).astype(np.uint8))
    image.paste(layer, mask=layer)
    _obstruct(image, rng)
    return _develop(image, rng)


# ---- The data set --------------------------------------------------------------------------------------------------------


def draw(kind: Kind, rng: np.random.Generator, size: int = 224) -> Image.Image:
    """Draws one animal: an RGB picture of `size` x `size` pixels that follows from `rng` alone."""
    return _scene(kind, rng, (size, size))


def draw_dataset(root: Path, seed: int = 0, counts: Mapping[str, int] = COUNTS) -> None:
    """Writes ROOT/SPLIT/{cats,dogs}/{cat,dog}.NNN.jpg: `counts[split]` pictures of each class, of 200 to 320 pixels a side.

    Each picture has a generator of its own, seeded with (seed, split, class, number): counts can change without changing
    the pictures, and the same seed gives the same files (with the same versions of NumPy and Pillow).
    """
    jobs = [(split, label, number) for split in counts for label in range(len(KINDS)) for number in range(counts[split])]
    with progress_bar("pictures") as progress:
        for split, label, number in progress.track(jobs, description="drawing the demo data set"):
            rng, kind = np.random.default_rng([seed, SPLITS.index(split), label, number]), KINDS[label]
            path = root / split / f"{kind}s" / f"{kind}.{number:03}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            width, height = rng.integers(200, 321, 2).tolist()
            _scene(kind, rng, (width, height)).save(path, quality=int(rng.integers(82, 95)))


def draw_once() -> Path:
    """The root of the default data set, below `storage.cache_directory()`: drawn by the first call, found by later ones.

    It is drawn beside its place and renamed, so that a killed run leaves no half data set; of two processes that draw at once,
    both end with the whole of it.

    Raises:
      CatdogError: the directory cannot be written, with the path and the reason.
    """
    root = storage.cache_directory() / f"demo-v{VERSION}"
    temporary = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    try:
        if not root.is_dir():
            draw_dataset(temporary, counts=COUNTS)
            os.replace(temporary, root)
    except OSError as error:
        if not root.is_dir():  # otherwise another process was faster
            raise CatdogError(f"{root}: cannot be drawn: {error.strerror or error}. Free space or set CATDOG_CACHE.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return root
