"""The modified Halpern-Pearl definition, written down word by word for deterministic models of numbers. Shares no code with the toolkit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

Equations = Mapping[str, Callable[[Mapping[str, float]], float]]


def solve(equations: Equations, context: Mapping[str, float], done: Mapping[str, float]):
    """All values: roots from the context, others from their equations, in order; set ones as they are set."""
    values = dict(context)
    values.update({n: v for n, v in done.items() if n in context})
    for name, equation in equations.items():
        values[name] = done[name] if name in done else equation(values)
    return values


def subsets(names: Sequence[str]):
    for size in range(len(names) + 1):
        yield from itertools.combinations(names, size)


def causes(equations, context, happened, domains):
    """Cause to the smallest number of sites that have to be held, by trying everything.

    Args:
        equations: non-root to its equation, in order.
        context: root to value.
        happened: values to whether the outcome happened.
        domains: candidates to all of their values.
    """
    names = list(domains)
    actual = solve(equations, context, {})
    assert happened(actual)
    works: dict[frozenset[str], int] = {}
    for x in subsets(names):
        if not x:
            continue
        rest = [n for n in names if n not in x]
        best = None
        for w in subsets(rest):
            held = {n: actual[n] for n in w}
            for values in itertools.product(*(domains[n] for n in x)):
                found = solve(equations, context, {**held, **dict(zip(x, values, strict=True))})
                if not happened(found) and (best is None or len(w) < best):
                    best = len(w)
        if best is not None:
            works[frozenset(x)] = best
    return {x: w for x, w in works.items() if not any(other < x for other in works)}
