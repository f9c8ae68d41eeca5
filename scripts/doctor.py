"""Look at the machine that a job runs on: `catdog doctor` as a file that a job scheduler can start.

Before a long extraction, as the first line of the job (status 1 if an accelerator is there that JAX
does not use):

    srun --gpus=1 --cpus-per-task=16 python scripts/doctor.py

`python scripts/doctor.py --help` lists the options; they are those of `catdog doctor`.
"""

import sys

from catdog_jax.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["doctor", *sys.argv[1:]]))
