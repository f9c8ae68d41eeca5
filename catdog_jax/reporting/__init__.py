"""Figures and how they are shown: no stage is known here, and no JAX.

`metrics` computes them and `intervals` says how sure they are; `plots` draws and `html` writes
pages. A new metric is a line in `metrics` and its title in `evaluation/page`.
"""
