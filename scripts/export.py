"""Write the deployable ONNX file: `catdog export` as a file that a job scheduler can start.

A few photos go through JAX and ONNX Runtime, and a CPU is enough. After the training job of a SLURM
cluster:

    sbatch --dependency=afterok:$TRAIN_JOB --wrap 'python scripts/export.py --run runs/head'

`python scripts/export.py --help` lists the options; they are those of `catdog export`.
"""

import sys

from catdog_jax.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["export", *sys.argv[1:]]))
