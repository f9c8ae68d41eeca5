"""How good a head or a model file is, on photos that it has not seen.

Read `evaluate` (the stage), `compare` (model files side by side) and `page` (the report).
"""
