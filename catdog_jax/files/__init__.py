"""Bytes that survive a crash. Nothing here knows what a photo or a model is.

Read `atomic` first: whole files, sealed JSON and whole folders, each the old one or the new one, never a part. `buckets` gives
a folder on a disk and a prefix in a bucket the same methods; `downloads` fetches a file that is known by its hash.
"""
