"""Figures and how they are shown: no stage is known here, and no JAX.

Read `predictions` (what every metric is computed from), `metrics` (one record a metric) with
`intervals` (how sure a figure is) and `calibration_error`, then `warnings` (what they do not tell);
`plots` draws, and `html` fills the templates in catdog_jax/page/report. A new metric is one entry of `metrics.METRICS`.
"""
