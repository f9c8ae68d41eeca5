"""An animal of the demo as it falls onto the picture: its balls are cast with a depth buffer."""

from dataclasses import dataclass

import numpy as np

from catdog_jax.photos.demo.animals import POSES, Ball, Breed, body_of, head_of, moved, rotation


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


def photograph(breed: Breed, size: tuple[int, int], rng: np.random.Generator) -> View:
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
    return View(head + body, centres, axes * scale, combs, float(scale), *cast(centres, axes * scale, size))


def cast(centres: np.ndarray, axes: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
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
