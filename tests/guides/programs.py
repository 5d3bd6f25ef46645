"""Programs whose posteriors are known in closed form or by enumeration, without the library's code."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

# --- Linear and normal: two latent vectors, three observed ones, 16 numbers ------------------------------------------

_generator = torch.Generator().manual_seed(3)
PRIOR = torch.tensor([1.0, 2.0, 1.0, 0.5])
MATRICES = [torch.randn(n, 4, generator=_generator) * 0.7 for n in (6, 5, 5)]
NOISE = [0.8, 1.5, 0.5]


def linear() -> None:
    a = pyro.sample("a", dist.Normal(0.0, PRIOR[:2]).to_event(1))
    b = pyro.sample("b", dist.Normal(0.0, PRIOR[2:]).to_event(1))
    both = torch.cat([a, b])
    for i, (matrix, noise) in enumerate(zip(MATRICES, NOISE, strict=True)):
        pyro.sample(f"y{i}", dist.Normal(matrix @ both, noise).to_event(1))


def linear_cases(count: int, seed: int) -> list[Tensor]:
    """Held-out data of each observed site, made by hand."""
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(count, 4, generator=generator) * PRIOR
    return [
        latent @ m.T + s * torch.randn(count, len(m), generator=generator)
        for m, s in zip(MATRICES, NOISE, strict=True)
    ]


def linear_posterior(data: list[Tensor], shown: tuple[bool, ...]) -> tuple[Tensor, Tensor]:
    """Exact means ``(cases, 4)`` and standard deviations ``(4,)`` given the sites that are shown."""
    precision = torch.diag(PRIOR**-2)
    weighed = torch.zeros(len(data[0]), 4)
    for y, matrix, noise, there in zip(data, MATRICES, NOISE, shown, strict=True):
        if there:
            precision = precision + matrix.T @ matrix / noise**2
            weighed = weighed + y @ matrix / noise**2
    covariance = torch.linalg.inv(precision)
    return weighed @ covariance, covariance.diagonal().sqrt()


# --- A discrete and a continuous latent site -------------------------------------------------------------------------

WEIGHTS = torch.tensor([0.2, 0.5, 0.3])
CENTRES = torch.tensor([-2.0, 0.0, 2.5])
SPREADS = torch.tensor([0.5, 1.0, 0.7])


def mixture() -> None:
    k = pyro.sample("k", dist.Categorical(WEIGHTS))
    z = pyro.sample("z", dist.Normal(CENTRES[k.long()], SPREADS[k.long()]))
    pyro.sample("y", dist.Normal(z, 0.8))
    pyro.sample("hint", dist.Bernoulli(0.1 + 0.4 * k.float()))


def mixture_posterior(y: float | None, hint: int | None) -> tuple[Tensor, float]:
    """Exact ``P(k)`` and ``E[z]`` given either or both: enumeration over ``k``, conjugacy in ``z``."""
    logs, means = WEIGHTS.double().log(), CENTRES.double().clone()
    variance = SPREADS.double() ** 2
    if hint is not None:
        p = 0.1 + 0.4 * torch.arange(3).double()
        logs = logs + (p if hint else 1 - p).log()
    if y is not None:
        total = variance + 0.64
        logs = logs - 0.5 * (y - means) ** 2 / total - 0.5 * total.log()
        means = (means * 0.64 + y * variance) / total
    weights = logs.softmax(0)
    return weights.float(), float((weights * means).sum())


# --- Units in a plate ------------------------------------------------------------------------------------------------


def people(count: int) -> None:
    """Each unit on its own."""
    with pyro.plate("people", count):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.7))
        pyro.sample("y", dist.Normal(2 * z, 1.0))


def schools(count: int) -> None:
    """A mean that all units share, and a value of each unit's own."""
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    with pyro.plate("schools", count):
        z = pyro.sample("z", dist.Normal(mean, 1.0))
        pyro.sample("y", dist.Normal(z, 0.7))


def schools_posterior(y: Tensor) -> tuple[float, float, Tensor]:
    """Exact mean and standard deviation of ``mean``, and the means of ``z``."""
    total = 1.0 + 0.49
    precision = 1 / 4 + len(y) / total
    centre = float(y.sum() / total / precision)
    return centre, math.sqrt(1 / precision), (y * 1.0 + centre * 0.49) / total
