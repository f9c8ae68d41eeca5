"""How good a head or a model file is, on photos that it has not seen.

Read `evaluate` (a head on cached features, photos or arrays), `result` (the Evaluation that it
returns), `unseen` (which photos of a data set count), `compare` (model files side by side), `page`
(the report) with `explained` (what its figures say, in sentences) and `run_files` (what a run
directory says of its head). A new metric is one entry in `reporting.metrics`; nothing changes here.
"""
