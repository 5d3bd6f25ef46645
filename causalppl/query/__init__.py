"""Queries in the literature's notation: ``P(y[x=1] = 1 | x=0, y=0)``."""

from ..notation.parser import parse, to_text
from .ask import mechanism_sensitivity, query
from .bounds import Bounds, bounds
from .estimate import Estimate, QueryDiagnostics

__all__ = [
    "Bounds",
    "Estimate",
    "QueryDiagnostics",
    "bounds",
    "mechanism_sensitivity",
    "parse",
    "query",
    "to_text",
]
