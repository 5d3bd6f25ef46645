"""The graph of one unit: what is left once the parameters, which all units share, are taken out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import networkx as nx

from .mixed import MixedGraph
from .separation import determined

__all__ = ["Projection", "UnitGraph"]


@dataclass(frozen=True)
class Projection:
    """What identification works on.

    Attributes:
        mixed: the latent projection.
        functions: its nodes that are functions of their parents in it, without noise.
        direct: its nodes whose parents in the program are all in it, or functions of what is: no latent noise reaches them
            but their own.
    """

    mixed: MixedGraph
    functions: frozenset[str]
    direct: frozenset[str]


@dataclass(frozen=True, eq=False)
class UnitGraph:
    """Sites of one unit.

    Attributes:
        graph: the sites and arrows, without parameters.
        observed: the sites whose values are known.
        deterministic: the sites that are functions of their parents.
    """

    graph: nx.DiGraph
    observed: frozenset[str]
    deterministic: frozenset[str]

    def determined(self, given: Iterable[str]) -> frozenset[str]:
        """``given`` and what is a function of it."""
        return determined(self.graph, given, self.deterministic)

    def projection(self, asked: Iterable[str]) -> Projection:
        """The latent projection for a question about these sites.

        A function of observed sites says nothing that they do not say, so it is left out unless it is asked about.
        """
        noisy = self.observed - self.deterministic
        told = self.determined(noisy)
        kept = noisy | (self.observed & self.deterministic - told) | set(asked)
        clear: set[str] = set()  # a function of what is kept
        direct: set[str] = set()
        for node in nx.topological_sort(self.graph):
            if all(p in kept or p in clear for p in self.graph.predecessors(node)):
                direct.add(node)
                if node in self.deterministic:
                    clear.add(node)
        mixed = MixedGraph.project(self.graph, kept, self.deterministic)
        return Projection(mixed, frozenset(clear & kept), frozenset(direct & kept))
