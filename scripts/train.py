"""Train a head on cached features: `catdog train` as a file that a job scheduler can start.

Seconds on any machine, once the features are there. On one GPU of a SLURM cluster:

    srun --gpus=1 python scripts/train.py --features features --out runs/head --preset default

`python scripts/train.py --help` lists the options; they are those of `catdog train`.
"""

import sys

from catdog_jax.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
