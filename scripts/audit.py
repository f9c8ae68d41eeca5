"""Look at a data set before training: `catdog audit` as a file that a job scheduler can start.

As the first job of a chain, which then ends with status 3 where something was found:

    srun --cpus-per-task=16 python scripts/audit.py --data photos --strict

`python scripts/audit.py --help` lists the options; they are those of `catdog audit`.
"""

import sys

from catdog_jax.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["audit", *sys.argv[1:]]))
