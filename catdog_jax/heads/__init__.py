"""The trained part: a small head on cached features.

Read `head` (the dense layers and their file), `fitting` (the loop: optax, epochs, early stopping,
many heads at once), `training` (the stage), then `calibration` (probabilities that mean what they
say), `search` (the sweep) and `run_directory` (the files of a run, and which of them a new head
makes stale).
"""
