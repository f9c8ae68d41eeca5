"""Drawn cats and dogs, the same bytes on each machine: a data set that is always at hand.

`drawing` is the data set, and `scenes` renders one picture. `animals` says how each animal is built,
`camera` casts it onto the picture, and `coat` colours, lights and combs it.
"""
