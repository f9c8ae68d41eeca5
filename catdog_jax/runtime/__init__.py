"""The exported model on photos: ONNX Runtime and NumPy, never JAX. All that a deployment needs.

Read `predictor` (`Predictor`: a model, open), `prediction` (what a photo may be given as, and the
verdict on it), `default_model` (which model is meant), `decision` (probabilities to a verdict: one
rule for every surface), `model_file` (opening, and what the metadata says), `devices` (where it runs),
`model_check` (what is refused before ONNX Runtime sees it) and `wire` (protobuf, read in bounded
steps). `side_by_side` times several models in turns on the same photos, `device_rates` one model on
several devices; `inputs` (which photos are meant), `watching` (a folder that photos arrive in),
`heatmaps`, `arguments`, `output` (tables, CSV, JSON lines, Parquet) and `sorting` are what `catdog
predict` adds; `embeddings` are what `catdog embed` writes.
"""
