"""A forest fire: lightning and an arsonist's match, together or either alone.

::

    lightning --> fire
    match --------^

Both are fair coins. Disjunctive: either is enough, ``fire = max(lightning, match)``; conjunctive: it takes both, ``fire = min``.

Was the match necessary, sufficient, both? Disjunctive: given match and fire, there was no lightning with probability 1/2, so PN = 1/2;
without match and fire, a match would have been enough, PS = 1; PNS = 1/2. Conjunctive: PN = 1, PS = 1/2, PNS = 1/2.

Who is to blame where both struck? Conjunctive: each is a cause, with responsibility 1. Disjunctive: neither alone is, because the other
would have done it; together they are, and each is a part of the cause, with responsibility 1/2.

Source: Halpern (2016), Actual Causality, example 2.3.1; Pearl (2009), Causality, section 10.1.4.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

__all__ = ["KNOWN", "data", "model"]

KNOWN = {
    "disjunctive_pn": 0.5,
    "disjunctive_ps": 1.0,
    "disjunctive_pns": 0.5,
    "conjunctive_pn": 1.0,
    "conjunctive_ps": 0.5,
    "conjunctive_pns": 0.5,
    "disjunctive_responsibility": 0.5,  # of {lightning, match}, the only cause
    "conjunctive_responsibility": 1.0,  # of lightning, and of match
}


def model(conjunctive: bool = False) -> torch.Tensor:
    """One forest: ``lightning``, ``match``, ``fire``, each 0 or 1.

    Args:
        conjunctive: whether it takes both.
    """
    lightning = pyro.sample("lightning", dist.Bernoulli(0.5))
    match = pyro.sample("match", dist.Bernoulli(0.5))
    together = torch.minimum if conjunctive else torch.maximum
    return pyro.deterministic("fire", together(lightning, match))


def data() -> tuple[tuple[()], dict[str, torch.Tensor]]:
    """Both struck."""
    return (), {"lightning": torch.tensor(1.0), "match": torch.tensor(1.0)}
