"""The demo set's pictures: an animal cast onto a picture, coloured, lit and combed, in a place with things in front.

Poses, cameras, places, things in front and light come from the same distributions for both kinds,
so that composition does not tell the class.
"""

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from catdog_jax.photos.demo.animals import BREEDS, Kind, unit
from catdog_jax.photos.demo.camera import View, photograph
from catdog_jax.photos.demo.coat import blur, groom, noise, ramp, render

PLACES = ("meadow", "room", "sofa", "tiles", "lights", "plain")
OBSTACLES = ("", "", "", "", "fence", "leaves", "box", "hand")


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
    floor = ramp(down - horizon, 0.02)
    pixels = np.multiply(far, (1.1 - 0.3 * down) * (1 - floor)) + np.multiply(near, (0.75 + 0.35 * down) * floor)
    texture = 9 * noise((height, width), width / 5, rng) + 5 * noise((height, width), 2, rng)
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
    return Image.fromarray(blur(np.asarray(mask), 0.3 * view.scale).astype(np.uint8))


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
    view = photograph(breed, size, rng)
    animal = groom(*render(view, breed, light, rng), view.part >= 0, breed.curly, rng)
    image = background((size[0] // 2, size[1] // 2), rng).resize(size, Image.Resampling.BICUBIC)  # out of focus
    image.paste((20, 18, 16), mask=_shadow(view, light))
    layer = Image.fromarray(np.clip(animal, 0, 255).astype(np.uint8))
    image.paste(layer, mask=layer)
    _obstruct(image, rng)
    return _develop(image, rng)
