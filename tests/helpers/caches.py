"""Feature caches of two clouds of points."""

import dataclasses
from pathlib import Path

import numpy as np

from catdog_jax.config import TrainConfig
from catdog_jax.features import shards as shard_files
from catdog_jax.features.cache import FeatureCache
from catdog_jax.features.shards import Rows
from catdog_jax.photos.fingerprint import Fingerprint

PRINTS = Fingerprint(
    weights_sha256="0" * 64,
    preprocessing="torch",
    pool="avg",
    views=("original",),
    dtype="float16",
    classes=("cats", "dogs"),
)


def make_cache(path: Path, rows: int = 300, views: int = 1, shard: int = 100, noise: float = 1.0) -> FeatureCache:
    """Two Gaussian clouds, shifted by one in the first twenty columns, and columns on very different scales."""
    rng = np.random.default_rng(0)
    prints = dataclasses.replace(PRINTS, views=("original", "mirror")[:views])
    names = []
    for split, count in (("train", rows), ("validation", 120), ("test", 60)):
        shards = -(-count // shard)
        for i in range(shards):
            n = min(shard, count - i * shard)
            labels = rng.integers(0, 2, n)
            x = rng.standard_normal((n, views, 512)) * noise
            x[:, :, :20] += 2 * labels[:, None, None]
            x = x * np.logspace(-2, 1, 512) + 3
            name = f"{split}-{i:05d}-of-{shards:05d}"
            ids = [f"{name}/{j}" for j in range(n)]
            shard_files.write_shard(path, name, Rows(ids, labels.tolist(), ids, [], [x.astype(np.float32)]), prints)
            names.append(name)
    shard_files.write_manifest(path, "made", names, prints)
    return FeatureCache.open(path)


def config(tmp_path: Path, **options) -> TrainConfig:
    settings = {"features": tmp_path / "features", "out": tmp_path / "run", "pool": "avg", "epochs": 5, "hidden": (16,)}
    return TrainConfig(**(settings | options))
