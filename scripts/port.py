"""Convert pretrained VGG16 weights: `catdog port` as a file that a job scheduler can start.

Do it once where there is a network, then give the jobs that have none the file:

    python scripts/port.py --out weights/vgg16.safetensors

`python scripts/port.py --help` lists the options; they are those of `catdog port`.
"""

import sys

from catdog_jax.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["port", *sys.argv[1:]]))
