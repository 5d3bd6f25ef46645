"""Identification of counterfactuals: ID* and IDC*, on counterfactual graphs, and then ID for what experiments would show."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from ..notation.terms import Outcome
from .counterfactual_graph import CounterfactualGraph, Inconsistent, Known, Node
from .formula import (
    Conditional,
    Experiment,
    Formula,
    Number,
    Value,
    Variable,
    product,
    ratio,
    substitute,
    sum_out,
)
from .identification import effect
from .mixed import MixedGraph
from .verdict import Conflict, Hedge

__all__ = ["Impossible", "identify_counterfactual"]


class Impossible(Exception):
    """The condition has probability zero in every model with this graph."""


def identify_counterfactual(
    graph: MixedGraph,
    event: Mapping[Outcome, float | None],
    given: Mapping[Outcome, float | None],
    functions: frozenset[str] = frozenset(),
    experiments: bool = False,
) -> tuple[Formula | None, list[Conflict | Hedge], list[Node]]:
    """``P(event | given)`` as a formula, or all that stands against one.

    The noise splits the event into components that are independent given their parents. A component that
    needs each site at one value is what one experiment shows; the others have no formula. What event and condition have in
    common cancels before it is looked at.

    Args:
        graph: the observed sites.
        event, given: potential outcomes with their values; ``None`` where the value is left open, a variable of the formula.
        functions: the sites that are functions of their parents, without noise.
        experiments: whether experiments on any observed sites are given too.

    Returns:
        the formula or ``None``, what forbids it, and the nodes of the counterfactual graph.

    Raises:
        Impossible: the condition contradicts itself.

    References:
        Shpitser, Pearl (2008), Complete identification methods for the causal hierarchy.
        Correa, Lee, Bareinboim (2021), Nested counterfactual identification from arbitrary surrogate experiments.
    """
    try:
        below = CounterfactualGraph(graph, given, functions)
    except Inconsistent:
        raise Impossible from None
    try:
        both = dict(event) | {o: v for o, v in given.items() if o not in event}
        above = CounterfactualGraph(graph, both, functions)
        if any(v is not None and event.get(o, v) not in (v, None) for o, v in given.items()):
            raise Inconsistent
    except Inconsistent:
        return Number(0.0), [], []
    shared: dict[Hashable, int] = {}
    tops, bottoms = _groups(above, shared), _groups(below, shared)
    common = tops.keys() & bottoms.keys()
    for same in common:
        del tops[same], bottoms[same]
    failures: list[Conflict | Hedge] = []
    texts = {n.label: n.text for n in (*below.nodes, *above.nodes)}
    sides = []
    for groups in (tops, bottoms):
        factors = []
        for group in groups.values():
            found, against = _group(graph, group, texts, experiments)
            failures += against
            if found is not None:
                factors.append(found)
        sides.append(product(factors))
    if failures:
        return None, list(dict.fromkeys(failures)), above.nodes
    if bottoms and not common and not any(o.settings for o in given):
        sides[1] = Conditional(tuple(_variable(n.site, n.known) for n in below.nodes if n.asked))
    return ratio(*sides) if bottoms else sides[0], [], above.nodes


def _groups(
    graph: CounterfactualGraph, shared: dict[Hashable, int]
) -> dict[frozenset[int], list[Sequence[Node]]]:
    """Groups by what they are, whichever graph they stand in."""
    signatures = graph.signatures(shared)
    return {
        frozenset(signatures[n.label] for component in group for n in component): group
        for group in graph.groups(graph.components())
    }


def _group(
    graph: MixedGraph,
    group: Sequence[Sequence[Node]],
    texts: Mapping[str, str],
    experiments: bool,
) -> tuple[Formula | None, list[Conflict | Hedge]]:
    factors, failures = [], []
    for component in group:
        found = _component(graph, component, texts, experiments)
        if isinstance(found, Conflict | Hedge):
            failures.append(found)
        else:
            factors.append(found)
    if failures:
        return None, failures
    summed = [n for component in group for n in component if n.summed]
    over = [_variable(n.site, n.label) for n in reversed(summed)]
    return sum_out(over, product(factors)), []


def _component(
    graph: MixedGraph, component: Sequence[Node], texts: Mapping[str, str], experiments: bool
) -> Formula | Conflict | Hedge:
    """The probability of a component when the parents of its nodes are set."""
    values: dict[str, Known] = {}
    needs = [need for n in component for need in n.parents.items()]
    for site, known in (*needs, *((n.site, n.known) for n in component)):
        if values.setdefault(site, known) != known:
            outcomes = tuple(dict.fromkeys(n.text for n in component))
            one, other = (texts[k] if isinstance(k, str) else k for k in (values[site], known))
            return Conflict(outcomes, site, (one, other), frozenset(n.site for n in component))
    own = {n.site for n in component}
    done = values.keys() - own
    order = [n for n in graph.order if n in values]
    of, behind = tuple(n for n in order if n in own), tuple(n for n in order if n in done)
    found: Formula | Hedge
    if len(of) == 1 and len(graph.district(of[0])) == 1:
        found = Conditional(of, behind)  # as ID finds too, in a time that grows with the graph
    else:
        found = effect(graph, own, set(done))
    if isinstance(found, Hedge):
        if not experiments:
            return found
        found = Experiment(of, behind)
    return substitute(found, {s: _variable(s, k) for s, k in values.items()})


def _variable(site: str, known: Known) -> Variable:
    return site if known == site else Value(site, known)
