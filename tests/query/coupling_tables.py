"""Small structural causal models written out as tables, and their counterfactuals by brute force.

Nothing here uses causalppl but the terms of queries: worlds are computed by recursion for every combination of the sites'
response types.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from causalppl.notation.terms import Outcome

Config = tuple[float, ...]
#: A response: configuration of the parents to value.
Response = tuple[tuple[Config, float], ...]


class Tables:
    """A finite program: site to its parents and to the function from their values to probabilities."""

    def __init__(self, **sites: tuple[Sequence[str], Callable[..., Sequence[float]]]):
        self.sites = tuple(sites)
        self.parents = {name: tuple(parents) for name, (parents, _) in sites.items()}
        self._laws = {name: law for name, (_, law) in sites.items()}

    def conditional(self, site: str, given: Mapping[str, float]) -> dict[float, float]:
        p = self._laws[site](*(given[name] for name in self.parents[site]))
        p = (1 - p, p) if np.ndim(p) == 0 else p
        return {float(i): float(q) for i, q in enumerate(p)}

    def table(self, site: str, config: Config) -> list[float]:
        return list(
            self.conditional(site, dict(zip(self.parents[site], config, strict=True))).values()
        )

    def configs(self, site: str) -> list[Config]:
        """All configurations of a site's parents, those of a root being the empty one."""
        return list(itertools.product(*(range(self.size(p)) for p in self.parents[site])))

    def size(self, site: str) -> int:
        return len(self.table(site, self.configs(site)[0]))


def response_law(
    program: Tables, site: str, joint: Callable[[list[list[float]]], dict[tuple[int, ...], float]]
) -> dict[Response, float]:
    """A site's law of responses, given how the tables at its configurations are coupled."""
    configs = program.configs(site)
    law = joint([program.table(site, c) for c in configs])
    return {
        tuple((tuple(map(float, c)), float(v)) for c, v in zip(configs, values, strict=True)): p
        for values, p in law.items()
        if p > 0
    }


def comonotone(tables: list[list[float]]) -> dict[tuple[int, ...], float]:
    """One uniform through every inverse CDF."""
    return _by_uniform(tables, [False] * len(tables))


def antitone(tables: list[list[float]]) -> dict[tuple[int, ...], float]:
    """The uniform reflected at every second configuration."""
    return _by_uniform(tables, [i % 2 == 1 for i in range(len(tables))])


def _by_uniform(tables: list[list[float]], reflected: list[bool]) -> dict[tuple[int, ...], float]:
    cuts = {0.0, 1.0}
    for table, turned in zip(tables, reflected, strict=True):
        levels = np.cumsum(table)
        cuts |= {float(min(1.0, max(0.0, 1 - c if turned else c))) for c in levels}
    edges, law = sorted(cuts), {}
    for low, high in itertools.pairwise(edges):
        u = 0.5 * (low + high)
        values = tuple(
            min(int(np.searchsorted(np.cumsum(t), 1 - u if r else u)), len(t) - 1)
            for t, r in zip(tables, reflected, strict=True)
        )
        law[values] = law.get(values, 0.0) + high - low
    return law


def independent(tables: list[list[float]]) -> dict[tuple[int, ...], float]:
    """Every configuration draws for itself."""
    return {
        values: math.prod(t[v] for t, v in zip(tables, values, strict=True))
        for values in itertools.product(*(range(len(t)) for t in tables))
    }


def gumbel_max(tables: list[list[float]], draws: int = 20_000) -> dict[tuple[int, ...], float]:
    """Shared Gumbels, by simulation."""
    noise = np.random.default_rng(0).gumbel(size=(draws, len(tables[0])))
    with np.errstate(divide="ignore"):
        picked = np.stack([(np.log(t) + noise).argmax(1) for t in tables], 1)
    rows, counts = np.unique(picked, axis=0, return_counts=True)
    return {tuple(map(int, r)): c / draws for r, c in zip(rows, counts, strict=True)}


def truth(
    program: Tables,
    laws: Mapping[str, Mapping[Response, float]],
    weight: Callable[[Callable[[Outcome], float]], float],
    given: Callable[[Callable[[Outcome], float]], bool] = lambda value: True,
) -> float:
    """``E[weight | given]``: a sum over all combinations of responses, roots being responses to nothing.

    NaN where this coupling makes the condition impossible.
    """
    top = bottom = 0.0
    for combination in itertools.product(*(laws[s].items() for s in program.sites)):
        p = math.prod(q for _, q in combination)
        responses = {s: dict(r) for s, (r, _) in zip(program.sites, combination, strict=True)}

        def value(outcome: Outcome, responses: dict = responses) -> float:
            for setting in outcome.settings:
                if setting.site == outcome.site:
                    inner = setting.value
                    return value(inner) if isinstance(inner, Outcome) else float(inner)
            parents = program.parents[outcome.site]
            config = tuple(value(Outcome(p, outcome.settings)) for p in parents)
            return responses[outcome.site][config]

        if given(value):
            top += p * weight(value)
            bottom += p
    return top / bottom if bottom > 1e-9 else math.nan
