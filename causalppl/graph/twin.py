"""Twin networks: the graph of several worlds that share their noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import networkx as nx

__all__ = ["TwinNodes", "twin_nodes"]


class TwinNodes(NamedTuple):
    """The pieces of a twin network, for :meth:`~causalppl.graph.CausalGraph.twin`."""

    arrows: dict[str, set[str]]
    original: dict[str, str]  # every new node to the site that it belongs to
    noise: set[str]
    functions: set[str]
    intervened: set[str]


def twin_nodes(
    graph: nx.DiGraph, deterministic: frozenset[str], worlds: Mapping[str, frozenset[str]]
) -> TwinNodes:
    """Copies of what an intervention changes, and explicit noise for what is copied.

    A site that is no descendant of what is set is the same in both worlds, and one node.

    References:
        Balke, Pearl (1994), Probabilistic evaluation of counterfactual queries.
    """
    changed = {w: x.union(*(nx.descendants(graph, n) for n in x)) for w, x in worlds.items()}
    noisy = {n for w, x in worlds.items() for n in changed[w] - x if n not in deterministic}
    found = TwinNodes({}, {}, set(), noisy | deterministic, set())
    for node in nx.lexicographical_topological_sort(graph, key=list(graph).index):
        if node in noisy:
            found.arrows[f"noise/{node}"] = set()
            found.original[f"noise/{node}"] = node
            found.noise.add(f"noise/{node}")
        own = {f"noise/{node}"} if node in noisy else set()
        found.arrows[node] = set(graph.predecessors(node)) | own
        for world, x in worlds.items():
            if node not in changed[world]:
                continue
            copy = f"{world}/{node}"
            found.original[copy] = node
            found.functions.add(copy)  # a constant where it is set
            parents = {
                f"{world}/{p}" if p in changed[world] else p for p in graph.predecessors(node)
            }
            found.arrows[copy] = set() if node in x else parents | own
            if node in x:
                found.intervened.add(copy)
    return found
