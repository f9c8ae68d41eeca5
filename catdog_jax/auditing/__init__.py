"""Is a data set fit to train on? Found before training, by the photos alone and by their features.

Read `audit` (the list of checks, and the call that runs them) and `findings` (what a check is, and
all that was found). Then a module a check: `file_faults` (each file), `duplicates` (pairs of files,
by `photos.hashes`), `label_errors` and `drift` (by features, with heads of `out_of_fold`). They look at
the `evidence`; `page` shows what they find. A new check is a module here and a line in
`audit.CHECKS`; a new check of each file is a function and a line in `file_faults.FILE_CHECKS`.
`similar` is for afterwards: what looks like one photo, to judge it by.
"""
