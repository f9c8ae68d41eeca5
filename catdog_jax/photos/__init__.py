"""Photos and data sets, with NumPy and Pillow alone: no room above this one opens a photo by itself.

Read `dataset` (a photo is a Record, many are a Dataset), then `sources` (the table of where photos
come from) and the sources: `folders` (with `walk`, which files are photos, and `layout`, which
folders are splits), `tables`, `listed`, `tfds` (with `cats_vs_dogs`) and `demo`. `splitting` draws
the splits that nobody named, and keeps `groups` and `near_copies` (found by `hashes`) together.
`recipe` says how a photo becomes a square, `decoding` turns bytes into its pixels (`av1` tells how
large an AVIF is), `prefetch` does so for many photos ahead of whoever computes, in threads;
`decoding_pool` in processes, each a `decoding_worker`. `exclude_list` leaves photos out, and
`fingerprint` is what features say of the photos and the network that made them.

A new source is a module with `load` and a line in `sources`; an image format is a line in
`decoding`.
"""
