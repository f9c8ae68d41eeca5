"""The trained part: a small head on cached features.

Read `head` (the dense layers and their file), `rows` (features as a training takes them), `steps`
(the loss and one pass of optax), `fitting` (epochs and early stopping, many heads at once), `merging`
(heads of several shapes as one), `convex` (linear heads, exactly), `cross_validation` (few photos,
each judged by heads that have not seen it), `training` (`train`, which puts them together), then
`calibration` (probabilities that mean what they say), `strangeness` (photos of neither class),
`search` (the sweep), `training_log` and `event_files` (a training's course as it goes on), and
`run_directory` (the files of a run, and which of them a new head makes stale).
"""
