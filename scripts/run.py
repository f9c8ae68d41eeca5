"""From photos to a deployable model: `catdog run` as a file that a job scheduler can start.

All stages in one job, on one GPU of a SLURM cluster; when it is cut short, the same line resumes
the extraction:

    srun --gpus=1 --cpus-per-task=16 python scripts/run.py --data photos --out runs/photos

`python scripts/run.py --help` lists the options; they are those of `catdog run`.
"""

import sys

from catdog_jax.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["run", *sys.argv[1:]]))
