"""What the world does to photos, by strength, and pictures of neither class: pure functions for robustness.py."""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from catdog_jax.photos import decoding, sources
from catdog_jax.photos.dataset import Record
from catdog_jax.photos.demo import scenes
from catdog_jax.photos.recipe import DecodingRecipe

SIDE = 320  # of a drawn picture of neither class, in pixels


class Corruption(NamedTuple):
    """A way to spoil a photo.

    Attributes:
      apply: an RGB photo of any size, the strength and a generator -> the spoiled photo.
      unit: what the strength is.
      strengths: from mild to severe.
    """

    apply: Callable[[Image.Image, float, np.random.Generator], Image.Image]
    unit: str
    strengths: tuple[float, ...]


def jpeg(image: Image.Image, quality: float, _: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(quality))
    return Image.open(buffer).convert("RGB")


def downscale(image: Image.Image, side: float, _: np.random.Generator) -> Image.Image:
    scale = side / max(image.size)
    return image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BICUBIC
    )


def colour(image: Image.Image, saturation: float, _: np.random.Generator) -> Image.Image:
    return ImageEnhance.Color(image).enhance(saturation)


def rotate(image: Image.Image, degrees: float, _: np.random.Generator) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=_mean(image))


def wide(image: Image.Image, factor: float, _: np.random.Generator) -> Image.Image:
    return _padded(image, (round(factor * image.width), image.height))


def narrow(image: Image.Image, factor: float, _: np.random.Generator) -> Image.Image:
    return _padded(image, (image.width, round(factor * image.height)))


def blur(image: Image.Image, percent: float, _: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(percent / 100 * min(image.size)))


def noise(image: Image.Image, deviation: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    return Image.fromarray((pixels + deviation * rng.standard_normal(pixels.shape)).clip(0, 255).astype(np.uint8))


def brightness(image: Image.Image, factor: float, _: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def crop(image: Image.Image, share: float, _: np.random.Generator) -> Image.Image:
    width, height = max(1, round(share * image.width)), max(1, round(share * image.height))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _mean(image: Image.Image) -> tuple[int, ...]:
    return tuple(np.asarray(image).mean(axis=(0, 1)).round().astype(int).tolist())


def _padded(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    canvas = Image.new("RGB", size, _mean(image))
    canvas.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return canvas


CORRUPTIONS = {
    "JPEG": Corruption(jpeg, "quality", (50, 20, 10, 5, 2)),
    "downscale": Corruption(downscale, "longer side, pixels", (128, 64, 48, 32, 24, 16)),
    "grey": Corruption(colour, "saturation kept", (0.5, 0.25, 0)),
    "rotation": Corruption(rotate, "degrees", (10, 20, 45, 90, 135, 180)),
    "wide": Corruption(wide, "width, times", (1.5, 2, 3, 5)),
    "narrow": Corruption(narrow, "height, times", (1.5, 2, 3, 5)),
    "blur": Corruption(blur, "radius, % of the shorter side", (0.5, 1, 2, 3, 5)),
    "noise": Corruption(noise, "deviation, of 255", (10, 25, 50, 75, 100)),
    "dark": Corruption(brightness, "brightness, times", (0.5, 0.25, 0.1, 0.05)),
    "bright": Corruption(brightness, "brightness, times", (1.5, 2, 3, 5)),
    "crop": Corruption(crop, "share of each side kept", (0.8, 0.6, 0.4, 0.3, 0.2)),
}


def corrupt(encoded: bytes, name: str, strength: float, rng: np.random.Generator, recipe: DecodingRecipe) -> np.ndarray:
    """A photo's bytes -> what the model sees of the spoiled photo, uint8 [224, 224, 3], through the one decode gate."""
    with Image.open(io.BytesIO(encoded)) as photo:
        spoiled = CORRUPTIONS[name].apply(decoding.to_rgb(photo), strength, rng)
    return decoded(spoiled, recipe)


def decoded(image: Image.Image, recipe: DecodingRecipe) -> np.ndarray:
    """What the model sees of a picture in memory: uint8 [224, 224, 3]."""
    buffer = io.BytesIO()
    image.save(buffer, "BMP")
    return decoding.decode(buffer.getvalue(), recipe)


def is_readable(record: Record) -> bool:
    """Whether a photo can be decoded, by any recipe."""
    try:
        decoding.load(sources.read_patiently(record))
    except decoding.ImageError:
        return False
    return True


# Neither cat nor dog


def plain(rng: np.random.Generator) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), tuple(rng.integers(0, 256, 3).tolist()))


def static(rng: np.random.Generator) -> Image.Image:
    """Uniform noise, in grains of 1 to 32 pixels."""
    cells = SIDE // int(2 ** rng.integers(0, 6))
    grains = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
    return grains.resize((SIDE, SIDE), Image.Resampling.NEAREST)


def text(rng: np.random.Generator) -> Image.Image:
    """Lines of random letters, dark on light."""
    image = Image.new("RGB", (SIDE, SIDE), tuple(rng.integers(200, 256, 3).tolist()))
    pen, size = ImageDraw.Draw(image), int(rng.integers(10, 40))
    font = ImageFont.load_default(size)
    for top in range(4, SIDE, round(1.4 * size)):
        line = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz     "), 60))
        pen.text((6, top), line, tuple(rng.integers(0, 80, 3).tolist()), font)
    return image


def shapes(rng: np.random.Generator) -> Image.Image:
    """Ellipses and rectangles of plain colours."""
    image = plain(rng)
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(3, 12))):
        x, y = np.sort(rng.integers(0, SIDE, (2, 2)), axis=1).tolist()
        draw = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        draw((x[0], y[0], x[1], y[1]), tuple(rng.integers(0, 256, 3).tolist()))
    return image


def scenery(rng: np.random.Generator) -> Image.Image:
    """A background of the drawn demo set, with no animal in front."""
    return scenes.background((SIDE, SIDE), rng)


STRANGERS = {"plain colours": plain, "coloured noise": static, "text": text, "shapes": shapes, "drawn scenery": scenery}
