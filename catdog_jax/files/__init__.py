"""Bytes that survive a crash. Nothing here knows what a photo or a model is.

Read `atomic` first: a file is the old one or the whole new one. `sealed` files tell by their own
bytes whether they are as they were written; `atomic_folder` does both for folders. `buckets` gives
a folder on a disk and a prefix in a bucket the same methods; `downloads` fetches a file that is
known by its hash.
"""
