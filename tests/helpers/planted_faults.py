"""A copy of a data set with faults planted in it, and which of them an audit finds.

As a program, on photos of one's own: PYTHONPATH=tests python -m helpers.planted_faults --data
../shared/dogs-vs-cats --features artifacts/features"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from catdog_jax import cli
from catdog_jax.photos import sources

NUMBERS = {"swapped": 20, "across": 20, "encoded": 10, "truncated": 5, "text": 1}


def plant(source: Path, root: Path, numbers: dict[str, int], seed: int = 0) -> dict[str, list]:
    """Fills `root` with links to the photos of `source` and with faults, at random among the training photos.

    Returns:
      For each kind what an audit should find: ids, or, of copies, pairs of ids.
    """
    records = sources.load(str(source)).records
    for record in records:
        (root / record.id).parent.mkdir(parents=True, exist_ok=True)
        os.symlink((source / record.id).resolve(), root / record.id)
    rng = np.random.default_rng(seed)
    training = [record.id for record in records if record.split == "train"]
    chosen = iter(rng.permutation(training)[: sum(numbers.values())].tolist())
    classes = sorted({Path(one).parent.name for one in training})
    planted: dict[str, list] = {kind: [] for kind in numbers}
    for kind, count in numbers.items():
        for number in range(count):
            one = Path(next(chosen))
            if kind == "swapped":
                new = Path("train", classes[1 - classes.index(one.parent.name)], f"swapped-{one.name}")
                os.rename(root / one, root / new)
            else:
                split = ("test", "validation")[number % 2] if kind == "across" else "train"
                new = Path(split, one.parent.name, f"{kind}-{one.stem}.jpg")
                _write(kind, source / one, root / new, number)
            planted[kind].append([str(one), str(new)] if kind in ("across", "encoded") else str(new))
    return planted


def _write(kind: str, photo: Path, new: Path, number: int) -> None:
    if kind == "across":
        shutil.copy(photo, new)
    elif kind == "text":
        new.write_text("not a photo")
    elif kind == "truncated":
        new.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    else:
        share, quality = ((1, 40), (0.5, 80), (0.7, 60), (1.5, 85), (0.4, 75))[number % 5]
        with Image.open(photo) as image:
            image = image.convert("RGB")
            size = (round(image.width * share), round(image.height * share))
            if number % 2:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            image.resize(size, Image.Resampling.BICUBIC).save(new, quality=quality)


def recall(found: dict, planted: dict[str, list], most: int = 50) -> dict[str, int]:
    """How many of each kind are among the findings; of swapped labels, among the `most` most suspicious."""
    faults = {(one["photo"]["id"], one["kind"]) for one in found["faulty"]}
    groups = [{photo["id"] for photo in one["photos"]} for one in found["copies"]]
    across = [{photo["id"] for photo in one["photos"]} for one in found["copies"] if one["across"]]
    suspicious = {one["photo"]["id"] for one in found["suspicions"][:most]}
    return {
        "swapped": sum(one in suspicious for one in planted["swapped"]),
        "across": sum(any(set(pair) <= group for group in across) for pair in planted["across"]),
        "encoded": sum(any(set(pair) <= group for group in groups) for pair in planted["encoded"]),
        "truncated": sum((one, "truncated") in faults for one in planted["truncated"]),
        "text": sum((one, "unreadable") in faults for one in planted["text"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        planted = plant(options.data, Path(folder, "photos"), NUMBERS)
        command = [
            "audit",
            "--data",
            f"{folder}/photos",
            "--features",
            str(options.features),
            "--out",
            f"{folder}/audit",
        ]
        assert cli.main([*command, "--strict"]) == 3
        found = json.loads(Path(folder, "audit", "audit.json").read_text())
    for kind, count in recall(found, planted).items():
        print(f"{kind}: {count} of {len(planted[kind])}")
    print(
        f"swapped among all {found_suspects(found)} suspects: {recall(found, planted, found_suspects(found))['swapped']}"
    )


def found_suspects(found: dict) -> int:
    return sum(one["suspect"] for one in found["suspicions"])


if __name__ == "__main__":
    main()
