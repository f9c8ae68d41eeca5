"""The command line's stages, a file each: settings in, one call of the engine, print and write.

`run` does them all, in this order: `extract`, `train`, `evaluate`, `export`, `predict`. `audit` looks at
the photos before, `embed` and `similar` compare photos, `port` converts weights, `serve` puts a model
behind HTTP, `verify` reads all that was written again, `doctor` looks at the machine. What JAX is
needed for lies in `evaluate_head`, `export_head` and `doctor_of_jax`, so that the same stages take model
files without it (`evaluate_models`). A new stage is a file here, its settings in `config` and a line in
`cli`.
"""
