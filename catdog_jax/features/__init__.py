"""Photos to cached features: `.npy` shards that are resumed, shared, verified and taken over.

Read `extraction` (photos to a cache), `batches` (how photos and rows are handed to and fro),
`extractor` (the convolutions on the devices, and the table of their algorithms), `memory` (photos at
once, or too little memory), `shards` (the files as they are written), `cache` (the files as they are
read), `earlier` (rows that need not be computed), `growing` (a new cache in the place of an old one)
and `locks` (which process writes which shard).
"""
