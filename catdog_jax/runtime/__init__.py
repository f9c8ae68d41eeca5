"""The exported model on photos: ONNX Runtime and NumPy, never JAX. All that a deployment needs.

Read `predictor` (opens a file), `prediction` (photos through it: `catdog predict`), `decision`
(probabilities to a verdict: one rule for every surface), `model_check` (what is refused before ONNX
Runtime sees it), `heatmaps` and `output` (tables, CSV, JSON lines).
"""
