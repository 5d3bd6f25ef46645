"""Suzy and Billy throw rocks at a bottle; Suzy's gets there first.

Billy's rock hits only where Suzy's has not::

    suzy --> suzy_hits --> shatters
                 \\             ^
    billy ----> billy_hits ----/

Both throw, and the bottle shatters. Had Suzy not thrown, Billy's rock would have shattered it, so the outcome does not depend on her
throw; yet she did it and Billy did not. The modified definition sees it: while Billy's hit is held at what it **was**, 0, the outcome
depends on Suzy's throw. Her throw and her hit are causes, each with the witness ``billy_hits = 0`` and responsibility 1/2; Billy is none.

Source: Halpern (2016), Actual Causality, example 2.3.3; Hall (2004), Two concepts of causation.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

__all__ = ["KNOWN", "data", "model"]

KNOWN = {
    "shatters_without_suzy": 1.0,  # Billy would have done it
    "suzy_responsibility": 0.5,
    "billy_responsibility": 0.0,
}


def model(throws: float = 0.5) -> torch.Tensor:
    """One bottle: ``suzy`` and ``billy`` throw, each with probability ``throws``; everything is 0 or 1."""
    suzy = pyro.sample("suzy", dist.Bernoulli(throws))
    billy = pyro.sample("billy", dist.Bernoulli(throws))
    suzy_hits = pyro.deterministic("suzy_hits", suzy)
    billy_hits = pyro.deterministic("billy_hits", billy * (1 - suzy_hits))
    return pyro.deterministic("shatters", torch.maximum(suzy_hits, billy_hits))


def data() -> tuple[tuple[()], dict[str, torch.Tensor]]:
    """Both threw."""
    return (), {"suzy": torch.tensor(1.0), "billy": torch.tensor(1.0)}
