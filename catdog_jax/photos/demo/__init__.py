"""Drawn cats and dogs, the same bytes on each machine: a data set that is always at hand.

`drawing` is the data set, `scenes` renders one picture, `animals` says how each animal is built.
"""
