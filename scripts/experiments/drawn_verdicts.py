"""README's picture: drawings of the demo, and where the published model sees its evidence. No photo is needed.

python -m scripts.experiments.drawn_verdicts
"""

import io
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from catdog_jax.photos.demo import drawing
from catdog_jax.runtime import decision, heatmaps
from catdog_jax.runtime.predictor import Predictor

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs" / "images" / "verdicts.jpg"
DRAWN = (("cat", 8), ("cat", 1), ("cat", 11), ("dog", 10), ("dog", 11), ("dog", 12))


def main() -> None:
    """Draws the animals, classifies them and writes the picture."""
    model = Predictor(ROOT / "artifacts" / "default" / "model-int8.onnx")
    pictures = [drawing.draw(kind, np.random.default_rng(seed)) for kind, seed in DRAWN]
    figure, axes = plt.subplots(2, len(DRAWN), figsize=(12, 4.4), layout="constrained")
    for (above, below), picture, answer in zip(axes.T, pictures, model(pictures), strict=True):
        above.imshow(picture)
        second = answer.label == model.classes[1]
        below.imshow(Image.open(io.BytesIO(heatmaps.overlay(picture, answer.heatmap, second, model.recipe))))
        said = decision.said(answer.label, answer.sure, answer.neither)
        below.set_title(f"{said}, {answer.probability:.0%}", y=-0.18, fontsize=11)
    for axis in axes.flat:
        axis.set_axis_off()
    OUT.parent.mkdir(exist_ok=True)
    figure.savefig(OUT, dpi=100, pil_kwargs={"quality": 88})


if __name__ == "__main__":
    main()
