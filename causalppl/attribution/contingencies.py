"""The search of the modified Halpern-Pearl definition in one context: which sets are causes, and what has to be held.

Nothing here knows a program. ``happens`` says whether the outcome happens under each of some interventions, all at once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import QueryError

__all__ = ["Contingency", "Setting", "search"]

#: Site to the value that it is set to.
Setting = dict[str, float]

#: Interventions that are tried at most.
MOST = 50_000


@dataclass(frozen=True)
class Contingency:
    """A cause in one context.

    Attributes:
        sites: the sites of the cause.
        witness: the sites that are held, at their actual values; as few as possible.
        alternative: values of the cause's sites under which the outcome does not happen.
    """

    sites: frozenset[str]
    witness: Setting
    alternative: Setting

    @property
    def responsibility(self) -> float:
        """One over the number of sites that are changed or held."""
        return 1 / (len(self.sites) + len(self.witness))


def search(
    happens: Callable[[Sequence[Setting]], Sequence[bool]],
    actual: Mapping[str, float],
    candidates: Sequence[str],
    alternatives: Mapping[str, Sequence[float]],
    below: Mapping[str, frozenset[str]],
    largest: int,
) -> list[Contingency]:
    """All minimal sets that satisfy AC2 with some witness, smaller ones first.

    Args:
        happens: whether the outcome happens, for each of some settings of sites.
        actual: candidates to their values in the context.
        candidates: sites that may be causes or be held.
        alternatives: candidates to the values that they may be set to.
        below: candidates to those of the candidates that they affect: holding any other changes nothing.
        largest: the most sites of a cause.

    Raises:
        QueryError: too many interventions would have to be tried.
    """
    found: list[Contingency] = []
    tried = 0
    for size in range(1, min(largest, len(candidates)) + 1):
        open_sets = [
            frozenset(chosen)
            for chosen in itertools.combinations(candidates, size)
            if not any(cause.sites <= set(chosen) for cause in found)
        ]
        held = {x: [c for c in candidates if _affected(c, x, below)] for x in open_sets}
        most = max(map(len, held.values()), default=0)
        for count in range(most + 1):
            tried += sum(
                math.comb(len(held[x]), count) * math.prod(len(alternatives[c]) for c in x)
                for x in open_sets
            )
            if tried > MOST:
                raise QueryError(
                    f"actual_causes: more than {MOST} interventions would have to be tried; name fewer sites, candidates=[...], or "
                    "look for small causes alone, largest=1"
                )
            trials = [
                (x, w, setting)
                for x in open_sets
                for w in itertools.combinations(held[x], count)
                for setting in _settings(sorted(x), alternatives)
            ]
            outcomes = happens([s | {c: actual[c] for c in w} for _, w, s in trials])
            succeeded: dict[frozenset[str], Contingency] = {}
            for (x, w, setting), still in zip(trials, outcomes, strict=True):
                if not still and x not in succeeded:
                    succeeded[x] = Contingency(x, {c: actual[c] for c in w}, setting)
            found += succeeded.values()
            open_sets = [x for x in open_sets if x not in succeeded]
    return found


def _affected(site: str, changed: frozenset[str], below: Mapping[str, frozenset[str]]) -> bool:
    return site not in changed and any(site in below[x] for x in changed)


def _settings(
    sites: Sequence[str], alternatives: Mapping[str, Sequence[float]]
) -> Iterator[Setting]:
    for values in itertools.product(*(alternatives[site] for site in sites)):
        yield dict(zip(sites, values, strict=True))
