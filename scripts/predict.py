"""Classify photos with the exported model: `catdog predict` as a file that a job scheduler can start.

Needs neither JAX nor an accelerator: ONNX Runtime computes on the CPU. A folder of photos, one JSON
object a line:

    python scripts/predict.py photos --model runs/head/model.onnx --format jsonl >predictions.jsonl

`python scripts/predict.py --help` lists the options; they are those of `catdog predict`.
"""

import sys

from catdog_jax.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["predict", *sys.argv[1:]]))
