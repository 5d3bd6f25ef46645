"""M-bias: a variable measured before the treatment that must not be adjusted for.

``m`` is caused by two unmeasured causes, one of the treatment and one of the outcome::

    a --> x --> y
    a --> m <-- b --> y

Everything is binary, with P(a = 1) = P(b = 1) = .5, P(m = 1 | a, b) = .1 + .8 a b, P(x = 1 | a) = .2 + .6 a and
P(y = 1 | x, b) = .1 + .3 x + .5 b. Seeing is doing: P(y = 1 | x) = P(y = 1 | do(x)) = .35 + .3 x. Adjusting for ``m`` gives another number,
because ``a`` and ``b`` depend on each other given ``m``.

Source of the graph: Greenland, Pearl, Robins (1999), Causal diagrams for epidemiologic research.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

__all__ = ["KNOWN", "model"]

KNOWN = {"seeing_1": 0.65, "seeing_0": 0.35, "doing_1": 0.65, "doing_0": 0.35}


def model() -> torch.Tensor:
    """One unit: ``a``, ``b``, ``m``, ``x``, ``y``, each 0 or 1; ``a`` and ``b`` are not measured."""
    a = pyro.sample("a", dist.Bernoulli(0.5))
    b = pyro.sample("b", dist.Bernoulli(0.5))
    pyro.sample("m", dist.Bernoulli(0.1 + 0.8 * a * b))
    x = pyro.sample("x", dist.Bernoulli(0.2 + 0.6 * a))
    return pyro.sample("y", dist.Bernoulli(0.1 + 0.3 * x + 0.5 * b))
