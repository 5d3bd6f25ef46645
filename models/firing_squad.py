"""A firing squad with a nervous rifleman: was the prisoner's death his doing?

The court may order the execution, the captain then signals, two riflemen fire at the signal, and
either shot kills. But rifleman A is nervous and may fire without one::

    order --> captain --> rifleman_b --> death
                     \\--> rifleman_a --^
            nerves -------^

All variables are 0 or 1. Only ``order`` (probability p) and ``nerves`` (probability q) are random;
everything else is a deterministic site, as in the book. Writing A as ``Bernoulli(q)`` given no
signal would bury his nerves in that site's noise and leave nothing to ask about them; writing the
riflemen as ``Bernoulli`` with probability 0 or 1 would lean on Pyro's clamping of such
probabilities, which makes the impossible merely improbable.

The prisoner is dead. Would he be alive had A not fired? Only if there was no order and A's nerves
did it:

    P(alive, had A not fired | dead) = q (1 - p) / (1 - (1 - p)(1 - q)),

and P(order | dead) = p / (1 - (1 - p)(1 - q)) is the complement: the captain's signal would have
had B kill him anyway.

Source: Pearl (2009), Causality, 2nd edition, section 7.1.2.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

__all__ = ["KNOWN", "alive_had_a_not_fired", "data", "model"]


def alive_had_a_not_fired(p: float = 0.6, q: float = 0.25) -> float:
    """P(alive, had A not fired | dead) for an order of probability ``p`` and nerves of ``q``."""
    return q * (1 - p) / (1 - (1 - p) * (1 - q))


KNOWN = {
    "dead": 0.7,  # P(death = 1) = 1 - (1 - p)(1 - q)
    "order_given_dead": 6 / 7,
    "alive_had_a_not_fired": 1 / 7,
}


def model(p: float = 0.6, q: float = 0.25) -> torch.Tensor:
    """One execution, with an order of probability ``p`` and nerves that fire A's rifle with probability ``q``."""
    order = pyro.sample("order", dist.Bernoulli(p))
    nerves = pyro.sample("nerves", dist.Bernoulli(q))
    captain = pyro.deterministic("captain", order)
    rifleman_a = pyro.deterministic("rifleman_a", torch.maximum(captain, nerves))
    rifleman_b = pyro.deterministic("rifleman_b", captain)
    return pyro.deterministic("death", torch.maximum(rifleman_a, rifleman_b))


def data() -> tuple[tuple[()], dict[str, torch.Tensor]]:
    """All that is known is that the prisoner is dead."""
    return (), {"death": torch.tensor(1.0)}
