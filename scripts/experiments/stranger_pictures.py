"""Pictures of neither class that code makes: each kind follows from its generator alone. For strangers.py."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from catdog_jax.photos.demo import scenes
from catdog_jax.photos.demo.animals import KINDS
from scripts.experiments.corruptions import SIDE, plain, scenery, shapes, static, text


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _coordinates() -> tuple[np.ndarray, np.ndarray]:
    """x and y of each pixel, from -0.5 to 0.5."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    return x, y


def white_noise(rng: np.random.Generator) -> Image.Image:
    """Each pixel of its own colour, or of its own grey."""
    grey = rng.random() < 0.5
    noise = rng.normal(rng.uniform(60, 190), rng.uniform(10, 80), (SIDE, SIDE, 1 if grey else 3))
    return _image(np.broadcast_to(noise, (SIDE, SIDE, 3)))


def pink_noise(rng: np.random.Generator) -> Image.Image:
    """Noise whose amplitude falls with the frequency as that of photos does: clouds of every size."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    frequency[0, 0] = 1
    power = rng.uniform(0.7, 1.8)
    spectrum = np.fft.rfft2(rng.normal(size=(3, SIDE, SIDE))) / frequency**power
    mixed = np.einsum("ij,jyx->yxi", np.eye(3) + rng.uniform(0, 1), np.fft.irfft2(spectrum, (SIDE, SIDE)))
    return _image(rng.uniform(70, 180, 3) + rng.uniform(20, 60) * (mixed - mixed.mean()) / mixed.std())


def blurred_noise(rng: np.random.Generator) -> Image.Image:
    """Coloured noise out of focus."""
    noise = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    soft = np.asarray(noise.filter(ImageFilter.GaussianBlur(rng.uniform(1, 20))), np.float64)
    return _image(128 + rng.uniform(20, 70) * (soft - soft.mean()) / soft.std())


def screen(rng: np.random.Generator) -> Image.Image:
    """A window of a program: a title bar, a menu, a table or bars, and words."""
    dark = rng.random() < 0.4
    back, ink = (rng.integers(15, 50, 3), (220, 220, 225)) if dark else (rng.integers(225, 256, 3), (40, 40, 45))
    image = Image.new("RGB", (SIDE, SIDE), tuple(back.tolist()))
    pen, accent = ImageDraw.Draw(image), tuple(rng.integers(30, 220, 3).tolist())
    font = ImageFont.load_default(int(rng.integers(9, 15)))
    bar, menu = int(rng.integers(16, 34)), int(rng.integers(40, 110))
    pen.rectangle((0, 0, SIDE, bar), accent)
    pen.rectangle((0, bar, menu, SIDE), tuple(np.clip(back + (12 if dark else -14), 0, 255).tolist()))
    for top in range(bar + 8, SIDE - 10, int(rng.integers(16, 30))):
        pen.text((6, top), _words(rng, 9), ink, font)
        if rng.random() < 0.5:
            pen.rectangle((menu + 10, top, menu + 10 + int(rng.integers(10, SIDE - menu)), top + 9), accent)
        else:
            pen.text((menu + 10, top), _words(rng, 40), ink, font)
    return image


def _words(rng: np.random.Generator, letters: int) -> str:
    return "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz0123456789     "), letters))


def chart(rng: np.random.Generator) -> Image.Image:
    """Lines, bars or a pie on white, with words."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(11)
    colours = [tuple(rng.integers(0, 220, 3).tolist()) for _ in range(6)]
    match int(rng.integers(3)):
        case 0:
            for colour in colours[: int(rng.integers(1, 5))]:
                heights = SIDE / 2 + np.cumsum(rng.normal(0, 12, 24))
                pen.line([(30 + 12 * i, float(height)) for i, height in enumerate(heights)], colour, 2)
        case 1:
            for i in range(int(rng.integers(4, 12))):
                pen.rectangle((34 + 23 * i, int(rng.integers(30, SIDE - 40)), 50 + 23 * i, SIDE - 30), colours[i % 6])
        case _:
            ends = np.cumsum(rng.dirichlet(np.ones(6))) * 360
            for start, end, colour in zip([0, *ends[:-1]], ends, colours, strict=True):
                pen.pieslice((40, 40, SIDE - 40, SIDE - 40), float(start), float(end), colour)
    pen.line([(28, 20), (28, SIDE - 28), (SIDE - 10, SIDE - 28)], "black", 1)
    pen.text((60, 4), _words(rng, 26), "black", font)
    return image


def gradient(rng: np.random.Generator) -> Image.Image:
    """One colour into another, along a line or from a point."""
    x, y = _coordinates()
    angle, centre = rng.uniform(0, 2 * np.pi), rng.uniform(-0.4, 0.4, 2)
    along = x * np.cos(angle) + y * np.sin(angle) + 0.5
    share = along if rng.random() < 0.5 else np.hypot(x - centre[0], y - centre[1])
    first, second = rng.uniform(0, 255, (2, 3))
    return _image(first + np.clip(share, 0, 1)[..., None] * (second - first))


def pattern(rng: np.random.Generator) -> Image.Image:
    """Stripes, checks, dots or a weave of two colours, at any angle."""
    x, y = _coordinates()
    angle, waves = rng.uniform(0, np.pi), rng.uniform(4, 40)
    u, v = (
        2 * np.pi * waves * part
        for part in (x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle))
    )
    share = {
        0: np.sin(u) > 0,
        1: (np.sin(u) > 0) ^ (np.sin(v) > 0),
        2: np.sin(u) + np.sin(v) > 1,
        3: 0.5 + 0.25 * (np.sin(u) + np.sin(v)),
        4: 0.5 + 0.5 * np.sin(u + 3 * np.sin(v / rng.uniform(2, 9))),
    }[int(rng.integers(5))]
    first, second = rng.uniform(0, 255, (2, 3))
    return _image(
        first + np.asarray(share, np.float64)[..., None] * (second - first) + rng.normal(0, 4, (SIDE, SIDE, 1))
    )


def drawing(rng: np.random.Generator) -> Image.Image:
    """A cat or a dog as the drawn data set has them: an animal of the two classes, but no photo."""
    return scenes.scene(KINDS[int(rng.integers(len(KINDS)))], rng, (SIDE, SIDE))


DRAWN: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "plain colours": plain,
    "gradients": gradient,
    "white noise": white_noise,
    "noise in grains": static,
    "pink noise": pink_noise,
    "blurred noise": blurred_noise,
    "text": text,
    "screens": screen,
    "charts": chart,
    "shapes": shapes,
    "patterns": pattern,
    "drawn scenery": scenery,
    "drawn cats and dogs": drawing,
}
