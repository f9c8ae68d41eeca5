"""Compute features of photos: `catdog extract` as a file that a job scheduler can start.

This is the stage that an accelerator makes fast. On one GPU of a SLURM cluster; when the job is cut
short, the same line goes on with the shards that are missing:

    srun --gpus=1 --cpus-per-task=16 python scripts/extract.py --data photos --out features

`python scripts/extract.py --help` lists the options; they are those of `catdog extract`.
"""

import sys

from catdog_jax.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["extract", *sys.argv[1:]]))
