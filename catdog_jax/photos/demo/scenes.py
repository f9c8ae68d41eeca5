"""The demo set's pictures: an animal cast onto a picture, coloured, lit and combed, in a place with things in front.

Balls are cast with a depth buffer; fur is noise smeared along the hair, and it pulls the outline
into tufts. Palettes, poses, cameras, places, things in front and light come from the same
distributions for both kinds, so that colour and composition do not tell the class.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from catdog_jax.photos.demo.animals import BREEDS, POSES, Ball, Breed, Kind, body_of, head_of, moved, rotation, unit

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
PLACES = ("meadow", "room", "sofa", "tiles", "lights", "plain")
OBSTACLES = ("", "", "", "", "fence", "leaves", "box", "hand")
FURRY = ("skull", "muzzle", "ear", "torso", "chest", "leg", "paw", "tail")
BARE = {
    "inner": (200, 146, 136),
    "ink": (38, 28, 28),
    "nose": (46, 36, 38),
    "tongue": (226, 118, 124),
    "whisker": (236,) * 3,
}
REGIONS = (*FURRY, *BARE, "eye", "collar")


# ---- The camera
# ----------------------------------------------------------------------------------------------------------


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
    body, neck = body_of(breed, pose, rng)
    look = rng.uniform(-40, 40) if rng.random() < 0.75 else turn  # at the viewer, mostly; else ahead
    nod = rotation(1, look - turn) @ rotation(0, rng.uniform(-12, 15)) @ rotation(2, rng.normal(0, 8))
    head = moved(head_of(breed, rng), nod, neck)
    camera = np.diag((1, -1, 1)) @ rotation(2, rng.normal(0, 5)) @ rotation(0, rng.uniform(2, 18)) @ rotation(1, turn)
    balls = moved(head + body, camera)
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


# ---- Coat, light and hair
# ------------------------------------------------------------------------------------------------


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
    facing = unit(np.einsum("pij,pi->pj", inverse, local))
    colour = _paint(view.figure, breed.kind, part, regions, local, rng)

    normal = np.where((eye | wet)[:, None], facing, unit(_blur(spread(facing), 0.06 * scale + 2)[seen]))
    hollow = np.clip((around(surface[:, 2], 0.3 * scale)[seen] - surface[:, 2]) / scale, 0, 0.6)
    bright = 0.42 + 0.68 * np.maximum(normal @ light, 0) - 0.5 * hollow + 0.2 * (1 - normal[:, 2]) ** 3
    shine = np.maximum(normal @ unit(np.add(light, (0, 0, 1.2))), 0) ** 40
    colour = colour * bright[:, None] + 190 * np.where(eye, shine > 0.6, 0.45 * shine * wet)[:, None]

    comb = _blur(spread(view.combs[part][:, :2] + 0.8 * normal[:, :2] + (0, 0.25)), 8)
    length = around(furry, 4) * breed.fur * scale
    length[seen] *= furry
    return spread(colour), np.dstack([unit(comb), length])


def _groom(
    colour: np.ndarray, hair: np.ndarray, cover: np.ndarray, curly: bool, rng: np.random.Generator
) -> np.ndarray:
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


# ---- The scene
# -----------------------------------------------------------------------------------------------------------


def _shade(colour: Any, factor: float = 1.0) -> tuple[int, ...]:
    return tuple(np.clip(np.multiply(colour, factor), 0, 255).astype(int).tolist())


def _muted(rng: np.random.Generator) -> np.ndarray:
    grey = rng.uniform(50, 220)
    return grey + rng.normal(0, 0.13 * grey, 3)


def background(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
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
            pen.line(
                [x, y * height, x + rng.normal(0, tall / 3), y * height - tall], _shade(near, rng.uniform(0.6, 1.5)), 1
            )
    elif place == "room":
        for y in horizon * height + np.cumsum(rng.uniform(3, 15, 12)):
            pen.line([0, y, width, y], _shade(near, 0.7))
        pen.rectangle([0, (horizon - 0.04) * height, width, horizon * height], _shade(far, rng.choice([0.6, 1.3])))
    elif place == "sofa":
        for x in np.arange(rng.uniform(-0.4, 0), 1.2, 0.45) * width:
            pen.rounded_rectangle([x, 0.1 * height, x + 0.44 * width, horizon * height], 8, _shade(near, 0.85))
            pen.rounded_rectangle(
                [x, (horizon - 0.03) * height, x + 0.44 * width, 1.05 * height], 8, _shade(near, 1.05)
            )
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
            pen.polygon(
                [*corner, *(middle + side), *tip, *(middle - side)], _shade((60, 110, 50), rng.uniform(0.6, 1.4))
            )
    elif thing == "box":
        pen.rectangle([-9, rng.uniform(0.72, 0.88) * height, width + 9, height + 9], colour, _shade(colour, 0.7), 4)
    elif thing == "hand":
        x, y, r = rng.uniform(0.1, 0.9) * width, rng.uniform(0.6, 0.9) * height, 0.1 * width
        skin = _shade((205, 155, 125), rng.uniform(0.4, 1.1))
        pen.line([x, y, x + rng.normal(0, r), 1.2 * height], skin, round(1.5 * r))
        for finger in np.linspace(-1, 1, 4):
            pen.line(
                [x + 0.6 * finger * r, y, x + 1.2 * finger * r, y - (1.7 - finger**2 / 2) * r], skin, round(0.5 * r)
            )
        pen.ellipse([x - r, y - r, x + r, y + r], skin)


def _develop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blur, contrast, a colour cast, exposure and noise."""
    pixels = np.asarray(image.filter(ImageFilter.BoxBlur(0.3 + rng.exponential(0.25))), np.float32) - 120
    pixels = pixels * (rng.uniform(0.7, 1.25) * rng.normal(1, 0.06, 3)).astype(np.float32) + np.float32(
        120 + rng.normal(0, 16)
    )
    pixels += rng.uniform(1, 7) * rng.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def scene(kind: Kind, rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Draws one animal of some breed, in some pose, somewhere: an RGB picture of `size` (width, height) pixels."""
    breeds = [breed for breed in BREEDS if breed.kind == kind]
    breed = breeds[rng.integers(len(breeds))]
    light = unit(np.array([rng.uniform(-0.8, 0.8), rng.uniform(-1.0, -0.3), rng.uniform(0.4, 1.0)], np.float32))
    view = _photograph(breed, size, rng)
    animal = _groom(*_render(view, breed, light, rng), view.part >= 0, breed.curly, rng)
    image = background((size[0] // 2, size[1] // 2), rng).resize(size, Image.Resampling.BICUBIC)  # out of focus
    image.paste((20, 18, 16), mask=_shadow(view, light))
    layer = Image.fromarray(np.clip(animal, 0, 255).astype(np.uint8))
    image.paste(layer, mask=layer)
    _obstruct(image, rng)
    return _develop(image, rng)
