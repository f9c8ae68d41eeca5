"""Photos to cached features: `.npy` shards that are resumed, shared and verified.

Read `extraction` (the stage), `extractor` (the convolutions on the devices), `shards` (the files as
they are written), `cache` (and as they are read) and `locks` (who writes which shard).
"""
