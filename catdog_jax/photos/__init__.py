"""Photos and data sets, with NumPy and Pillow alone: no room above this one opens a photo by itself.

Read `dataset` (a photo is a Record, many are a Dataset), then `sources` (where they come from:
`folders`, `tfds`, `cats_vs_dogs`, `demo`), `decoding` (bytes to 224 x 224 pixels), `prefetch` (many
of them, ahead of whoever computes) and `exclude_list` (photos to leave out). A new source is a
module with `load` and a line in `sources`; an image format is a line in `decoding`.
"""
