"""Causal graphs read off programs, and what can be known from them."""

from .causal_graph import CausalGraph
from .reading import causal_graph
from .verdict import Conflict, Hedge, Identification

__all__ = ["CausalGraph", "Conflict", "Hedge", "Identification", "causal_graph"]
