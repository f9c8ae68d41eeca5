"""Find the photos that look most like a photo: `catdog similar` as a file that a job scheduler can start.

Among the photos of a feature cache, or of a file of `catdog embed`:

    python scripts/similar.py some.jpg --among embeddings.npy --model runs/head/model.onnx

`python scripts/similar.py --help` lists the options; they are those of `catdog similar`.
"""

import sys

from catdog_jax.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["similar", *sys.argv[1:]]))
