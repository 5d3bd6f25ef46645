"""Queries in the literature's notation: ``P(y[x=1] = 1 | x=0, y=0)``."""
