"""Identification: whether an effect is a function of what is observed, and which.

The algorithm of Tian and Pearl, by districts, which is complete; a failure is a hedge.
"""

from __future__ import annotations

from collections.abc import Iterable

from .formula import Conditional, Formula, product, ratio, sum_out
from .mixed import MixedGraph
from .verdict import Hedge

__all__ = ["effect", "identify"]


def identify(
    graph: MixedGraph, y: Iterable[str], x: Iterable[str], z: Iterable[str] = ()
) -> Formula | Hedge:
    """``P(y | do(x), z)`` as a formula, or a hedge.

    References:
        Tian, Pearl (2002), A general identification condition for causal effects.
        Shpitser, Pearl (2006), Identification of conditional interventional distributions.
        Huang, Valtorta (2006), Pearl's calculus of intervention is complete.
    """
    outcome, treated, given = set(y), set(x), set(z)
    # Rule 2: what acts on the outcome only forwards may as well be set.
    moved = True
    while moved:
        moved = False
        for node in sorted(given):
            if graph.separated(outcome, {node}, treated | (given - {node}), treated, {node}):
                given.remove(node)
                treated.add(node)
                moved = True
                break
    joint = effect(graph, outcome | given, treated)
    if isinstance(joint, Hedge) or not given:
        return joint
    return ratio(joint, sum_out(sorted(outcome), joint))


def effect(graph: MixedGraph, y: set[str], x: set[str]) -> Formula | Hedge:
    """``P(y | do(x))`` as a formula, or a hedge."""
    graph = graph.within(graph.ancestors(y))
    order = graph.order
    relevant = graph.within(set(order) - x).ancestors(y)
    factors = []
    for part in graph.within(relevant).districts():
        whole = graph.district(next(iter(part)))
        law = product(Conditional((v,), graph.pillow(v, order)) for v in order if v in whole)
        found = _part(graph, part, whole, law, order)
        if isinstance(found, Hedge):
            return found
        factors.append(found)
    return sum_out([v for v in reversed(order) if v in relevant - y], product(factors))


def _part(
    graph: MixedGraph, part: frozenset[str], whole: frozenset[str], law: Formula, order: list[str]
) -> Formula | Hedge:
    """The law of the district ``part`` when all else is set, from that of the district ``whole`` around it."""
    while True:
        if part == whole:
            return law
        near = graph.within(whole).ancestors(part)
        if near == whole:
            inside = graph.within(part).directed
            roots = frozenset(n for n in part if not inside.out_degree(n))
            return Hedge(whole, part, roots)
        law = sum_out([v for v in reversed(order) if v in whole - near], law)
        whole = graph.within(near).district(next(iter(part)))
        nodes = [v for v in order if v in near]
        tops, bottoms = [], []
        for i, v in enumerate(nodes):
            if v in whole:
                tops.append(sum_out(reversed(nodes[i + 1 :]), law))
                if i:
                    bottoms.append(sum_out(reversed(nodes[i:]), law))
        law = ratio(product(tops), product(bottoms)) if bottoms else product(tops)
