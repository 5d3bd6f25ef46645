"""A treatment whose reason is hidden: a latent confounder that also modifies the effect.

Each unit has a latent severity ``z``. The severe are treated more often, and gain more from
treatment::

    z --> x --> y        z ~ N(0, 1),  x ~ Bernoulli(logits = z)
    z ----------^        y = x (1 + z) + z + N(0, scale)

The effect of treating a unit is 1 + z: it is 1 on average, and 1 + E[z | x = 1] = 1 + 2 E[z s(z)] =
1.4132 among the treated (s is the logistic function). The naive contrast between treated and
untreated is 1 + 3 E[z | x = 1] = 2.2397, more than twice the effect.

Treatment and outcome are observed and ``z`` is not, so a unit's counterfactual is uncertain: the
noise and z cannot be told apart from one outcome. Given both, however, it is a matter of
arithmetic: y had x been x' is y + (x' - x)(1 + z). So the counterfactual's posterior follows from
that of ``z``, which quadrature gives to any accuracy, one unit at a time.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

__all__ = ["KNOWN", "UNITS", "data", "model"]

UNITS = 100

KNOWN = {
    "average_effect": 1.0,
    "effect_on_the_treated": 1.4132419,
    "naive_contrast": 2.2397258,
}


def model(units: int = UNITS, scale: float = 0.5) -> torch.Tensor:
    """Independent units with latent ``z``, treatment ``x``, outcome ``y``: each ``(units,)``.

    Args:
        units: number of units, the size of the plate ``"units"``.
        scale: standard deviation of the outcome's noise, in units of the outcome.
    """
    with pyro.plate("units", units):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        x = pyro.sample("x", dist.Bernoulli(logits=z))
        return pyro.sample("y", dist.Normal(x * (1 + z) + z, scale))


def data() -> tuple[tuple[int], dict[str, torch.Tensor]]:
    """Treatments and outcomes of 100 simulated units; their ``z`` is thrown away, as life does."""
    generator = torch.Generator().manual_seed(20)
    z = torch.randn(UNITS, generator=generator)
    x = (torch.rand(UNITS, generator=generator) < torch.sigmoid(z)).to(z.dtype)
    y = x * (1 + z) + z + 0.5 * torch.randn(UNITS, generator=generator)
    return (UNITS,), {"x": x, "y": y}
