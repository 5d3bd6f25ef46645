"""Acyclic directed mixed graphs: what is left of a causal graph once its latent nodes are projected out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import networkx as nx

from .separation import separated

__all__ = ["MixedGraph"]


@dataclass(frozen=True, eq=False)
class MixedGraph:
    """Arrows, and bidirected edges between nodes that share a latent cause."""

    directed: nx.DiGraph
    bidirected: nx.Graph

    @classmethod
    def project(
        cls, graph: nx.DiGraph, kept: Iterable[str], functions: Iterable[str]
    ) -> MixedGraph:
        """The latent projection on ``kept``; ``functions`` are the nodes without noise of their own.

        References:
            Verma (1993), Graphical aspects of causal models.
        """
        seen = set(kept)
        order = [n for n in nx.topological_sort(graph) if n in seen]
        directed, bidirected = nx.DiGraph(), nx.Graph()
        directed.add_nodes_from(order)
        bidirected.add_nodes_from(order)
        hidden = [n for n in graph if n not in seen]
        for node in graph:
            reached = sorted(cls._reached(graph, node, seen), key=order.index)
            if node in seen:
                directed.add_edges_from((node, child) for child in reached)
            elif node not in set(functions) and node in hidden:
                bidirected.add_edges_from(
                    (u, v) for i, u in enumerate(reached) for v in reached[i + 1 :]
                )
        return cls(directed, bidirected)

    @staticmethod
    def _reached(graph: nx.DiGraph, node: str, seen: set[str]) -> set[str]:
        """The kept nodes that directed paths from ``node`` lead to without meeting another kept one."""
        found: set[str] = set()
        visited, todo = {node}, list(graph.successors(node))
        while todo:
            child = todo.pop()
            if child in visited:
                continue
            visited.add(child)
            if child in seen:
                found.add(child)
            else:
                todo.extend(graph.successors(child))
        return found

    @cached_property
    def order(self) -> list[str]:
        """The nodes, parents first."""
        return list(nx.lexicographical_topological_sort(self.directed))

    def within(self, nodes: Iterable[str]) -> MixedGraph:
        """The subgraph of these nodes."""
        kept = set(nodes)
        return MixedGraph(self.directed.subgraph(kept), self.bidirected.subgraph(kept))

    def ancestors(self, nodes: Iterable[str]) -> frozenset[str]:
        """These nodes and their ancestors."""
        return frozenset().union(*({n} | nx.ancestors(self.directed, n) for n in nodes))

    def district(self, node: str) -> frozenset[str]:
        """The nodes that bidirected edges connect with this one, itself included."""
        return frozenset(nx.node_connected_component(self.bidirected, node))

    def districts(self) -> list[frozenset[str]]:
        """All districts (c-components), in the order of the nodes."""
        found: list[frozenset[str]] = []
        for node in self.order:
            if not any(node in d for d in found):
                found.append(self.district(node))
        return found

    def pillow(self, node: str, order: list[str]) -> tuple[str, ...]:
        """What a node depends on given all that precedes it: its district among these, and its parents."""
        before = order[: order.index(node) + 1]
        near = self.within(before).district(node)
        found = near.union(*(self.directed.predecessors(n) for n in near)) - {node}
        return tuple(n for n in order if n in found)

    def separated(
        self,
        a: Iterable[str],
        b: Iterable[str],
        given: Iterable[str],
        no_in: Iterable[str],
        no_out: Iterable[str],
    ) -> bool:
        """m-separation in the graph without edges into ``no_in`` and without arrows out of ``no_out``."""
        into, out = set(no_in), set(no_out)
        canonical = nx.DiGraph()
        canonical.add_nodes_from(("node", n) for n in self.directed)
        for u, v in self.directed.edges:
            if u not in out and v not in into:
                canonical.add_edge(("node", u), ("node", v))
        for u, v in self.bidirected.edges:
            if not {u, v} & into:
                canonical.add_edge(("latent", u, v), ("node", u))
                canonical.add_edge(("latent", u, v), ("node", v))
        sets = ({("node", n) for n in names} for names in (a, b, given))
        return separated(canonical, *sets)  # type: ignore[arg-type]
