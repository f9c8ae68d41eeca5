"""The command line's stages, a file each: settings in, one call of the engine, print and write.

`run` does them all, in this order: `extract`, `train`, `evaluate`, `export`, `predict`. `audit` looks at
the photos before, `embed` and `similar` compare photos, `port` converts weights, `serve` puts a model
behind HTTP, `verify` reads all that was written again, `doctor` looks at the machine, with
`doctor_of_jax` where JAX is. A new stage is a file here, its settings in `config` and a line in `cli`.
"""
