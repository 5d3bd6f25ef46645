"""Sets of sites that satisfy a graphical criterion: back door, front door, instrument."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import networkx as nx

from ..errors import GraphError
from .separation import separated
from .unit import UnitGraph

__all__ = ["Criteria"]

_MOST_SUBSETS = 50_000


@dataclass(frozen=True)
class Criteria:
    """The criteria for the effect of ``x`` on ``y``.

    Attributes:
        unit: the graph of one unit.
        x, y: the treatment and the outcome.
    """

    unit: UnitGraph
    x: str
    y: str

    def backdoor(self) -> list[frozenset[str]]:
        """The minimal sets without descendants of ``x`` that block every path into it."""
        x, y, unit = self.x, self.y, self.unit
        after = nx.descendants(unit.graph, x) | {x}
        cut = _without(unit.graph, unit.graph.out_edges(x))
        near = nx.ancestors(unit.graph, x) | nx.ancestors(unit.graph, y)

        def valid(z: frozenset[str]) -> bool:
            return x not in unit.determined(z) and separated(cut, {x}, {y}, z, unit.deterministic)

        return _minimal(unit.observed & near - after - {x, y}, valid)

    def frontdoor(self) -> list[frozenset[str]]:
        """The minimal sets that intercept all directed paths, unconfounded with ``x``, and with ``y`` given ``x``."""
        x, y, graph, functions = self.x, self.y, self.unit.graph, self.unit.deterministic
        candidates = self.unit.observed & nx.ancestors(graph, y) - {x, y}
        candidates -= self.unit.determined({x})
        no_out = _without(graph, graph.out_edges(x))

        def valid(m: frozenset[str]) -> bool:
            if nx.has_path(graph.subgraph(set(graph) - m), x, y):
                return False
            if not separated(no_out, {x}, m, (), functions):
                return False
            return separated(_without(graph, graph.out_edges(m)), m, {y}, {x}, functions)

        return _minimal(candidates, valid)

    def instruments(self, order: Sequence[str]) -> dict[str, list[frozenset[str]]]:
        """Instruments, in this order, each with the minimal sets it is to be conditioned on."""
        x, y, graph, functions = self.x, self.y, self.unit.graph, self.unit.deterministic
        cut = _without(graph, graph.in_edges(x))
        found = {}
        candidates = self.unit.observed - nx.descendants(graph, x) - {x, y}
        for z in sorted(candidates, key=order.index):

            def valid(w: frozenset[str], z: str = z) -> bool:
                return not separated(graph, {z}, {x}, w, functions) and separated(
                    cut, {z}, {y}, w, functions - {x}
                )

            sets = _minimal(candidates - {z}, valid)
            if sets:
                found[z] = sets
        return found


def _without(graph: nx.DiGraph, edges: Iterable[tuple[str, str]]) -> nx.DiGraph:
    cut = graph.copy()
    cut.remove_edges_from(list(edges))
    return cut


def _minimal(
    candidates: Iterable[str], valid: Callable[[frozenset[str]], bool]
) -> list[frozenset[str]]:
    """The valid subsets without a valid proper subset, smallest first."""
    names, tried = sorted(candidates), 0
    found: list[frozenset[str]] = []
    for size in range(len(names) + 1):
        for subset in map(frozenset, combinations(names, size)):
            if any(f <= subset for f in found):
                continue
            tried += 1
            if tried > _MOST_SUBSETS:
                raise GraphError(
                    f"{len(names)} observed nodes have too many subsets to try; name fewer with causal_graph(model, observed=[...])"
                )
            if valid(subset):
                found.append(subset)
    return found
