"""Serve the exported model over HTTP: `catdog serve` as a file that a job scheduler can start. Needs the extra `serve`.

    python scripts/serve.py --model runs/head/model.onnx --port 8000

`python scripts/serve.py --help` lists the options; they are those of `catdog serve`.
"""

import sys

from catdog_jax.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["serve", *sys.argv[1:]]))
