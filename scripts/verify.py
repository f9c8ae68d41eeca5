"""Is everything that was written still what was written? `catdog verify` as a file that a job scheduler can start.

After a copy between machines, or before an export, on all that a run has:

    python scripts/verify.py runs/features runs/head

`python scripts/verify.py --help` lists the options; they are those of `catdog verify`.
"""

import sys

from catdog_jax.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["verify", *sys.argv[1:]]))
