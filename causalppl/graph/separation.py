"""D-separation: d-separation in graphs some of whose nodes are functions of their parents."""

from __future__ import annotations

from collections.abc import Iterable

import networkx as nx

__all__ = ["determined", "separated"]


def determined(
    graph: nx.DiGraph, given: Iterable[str], deterministic: Iterable[str]
) -> frozenset[str]:
    """``given`` and every deterministic node that is a function of it."""
    found, functions = set(given), set(deterministic)
    for node in nx.topological_sort(graph):
        if node in functions and found.issuperset(graph.predecessors(node)):
            found.add(node)
    return frozenset(found)


def separated(
    graph: nx.DiGraph,
    a: Iterable[str],
    b: Iterable[str],
    given: Iterable[str],
    deterministic: Iterable[str] = (),
) -> bool:
    """Whether ``a`` and ``b`` are D-separated by ``given``.

    A function of conditioned nodes is conditioned, and constant given them, so independent of everything.

    References:
        Geiger, Verma, Pearl (1990), Identifying independence in Bayesian networks.
    """
    known = determined(graph, given, deterministic)
    left, right = set(a) - known, set(b) - known
    return not left or not right or bool(nx.is_d_separator(graph, left, right, set(known)))
