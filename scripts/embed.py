"""Turn photos into vectors with the exported model: `catdog embed` as a file that a job scheduler can start.

Needs neither JAX nor labels. All photos of a folder:

    python scripts/embed.py photos --model runs/head/model.onnx --out embeddings.npy

`python scripts/embed.py --help` lists the options; they are those of `catdog embed`.
"""

import sys

from catdog_jax.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["embed", *sys.argv[1:]]))
