"""Causal graphs read off programs, and what can be known from them."""

from .causal_graph import CausalGraph
from .identification import Hedge, Identification
from .reading import causal_graph

__all__ = ["CausalGraph", "Hedge", "Identification", "causal_graph"]
