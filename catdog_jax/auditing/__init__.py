"""Is a data set fit to train on? Found before training, by the photos alone and by their features.

Read `audit` (the stage), `findings` (what it can find), then a module a check: `file_faults` (each
file), `duplicates` (pairs of files), `label_errors` (labels and drift, by features); `page` shows
them. A new check is a module here, a finding in `findings` and a section in `page`.
"""
