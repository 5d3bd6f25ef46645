"""The napkin: an effect that neither a back door nor a front door gives, and that is identified all the same.

``w`` shares one unmeasured cause with ``x`` and another with ``y``::

    w --> z --> x --> y
    a --> w, a --> x
    b --> w, b --> y

Everything is binary, with P(a = 1) = P(b = 1) = .5, P(w = 1 | a, b) = .1 + .4 a + .4 b, P(z = 1 | w) = .2 + .6 w,
P(x = 1 | z, a) = .1 + .4 z + .4 a and P(y = 1 | x, b) = .1 + .4 x + .4 b. So P(y = 1 | do(x)) = .3 + .4 x. The estimand is a ratio,
sum_w P(w) P(x | w, z) P(y | w, z, x) / sum_w P(w) P(x | w, z), the same for either value of ``z``.

Source of the graph: Pearl, Mackenzie (2018), The Book of Why, chapter 7.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

__all__ = ["KNOWN", "model"]

KNOWN = {"doing_1": 0.7, "doing_0": 0.3}


def model() -> torch.Tensor:
    """One unit: ``a``, ``b``, ``w``, ``z``, ``x``, ``y``, each 0 or 1; ``a`` and ``b`` are not measured."""
    a = pyro.sample("a", dist.Bernoulli(0.5))
    b = pyro.sample("b", dist.Bernoulli(0.5))
    w = pyro.sample("w", dist.Bernoulli(0.1 + 0.4 * a + 0.4 * b))
    z = pyro.sample("z", dist.Bernoulli(0.2 + 0.6 * w))
    x = pyro.sample("x", dist.Bernoulli(0.1 + 0.4 * z + 0.4 * a))
    return pyro.sample("y", dist.Bernoulli(0.1 + 0.4 * x + 0.4 * b))
