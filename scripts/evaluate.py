"""Evaluate a trained head: `catdog evaluate` as a file that a job scheduler can start.

Cached features need no accelerator; photos evaluated end to end (--data) do. On one GPU of a SLURM
cluster:

    srun --gpus=1 --cpus-per-task=16 python scripts/evaluate.py --run runs/head --data other-photos

`python scripts/evaluate.py --help` lists the options; they are those of `catdog evaluate`.
"""

import sys

from catdog_jax.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["evaluate", *sys.argv[1:]]))
