"""Photos to cached features: `.npy` shards that are resumed, shared and verified.

Read `extraction` (the stage and the device's part), then `cache` (the files, read and written) and `locks` (who writes which
shard).
"""
