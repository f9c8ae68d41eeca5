"""Photos to cached features: `.npy` shards that are resumed, shared and verified.

Read `extraction` (photos to a cache), `extractor` (the convolutions on the devices, and the table of
their algorithms), `shards` (the files as they are written), `cache` (the files as they are read) and
`locks` (which process writes which shard).
"""
