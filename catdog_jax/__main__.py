"""`python -m catdog_jax` is `catdog`."""

from catdog_jax.cli import main

raise SystemExit(main())
