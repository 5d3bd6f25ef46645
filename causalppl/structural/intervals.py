"""Ranges as evidence: draws inside them, and how probable they are, where the noise has quantiles."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import constraints

from ..mechanisms import Mechanism
from ..mechanisms.logistic import StandardLogistic, log1mexp, softplus, truncated
from .sites import elements

__all__ = ["constant_bounds", "draw_inside", "has_quantiles", "log_mass"]

#: The score from which a normal's tail is counted in logs: its probability nears the smallest number.
_FAR = 300.0
#: Mechanisms that are monotone in each entry's noise.
_MONOTONE = ("affine", "inverse_cdf")


def has_quantiles(mechanism: Mechanism | None, fn: Any) -> bool:
    """Whether values can be drawn inside a range at once, by truncating the noise of independent entries."""
    return (
        mechanism is not None
        and mechanism.invertible
        and mechanism.name in _MONOTONE
        and elements(fn) is not None
    )


def _law(mechanism: Mechanism, fn: Any) -> Any:
    law: Any = mechanism.noise(fn)
    while isinstance(law, torch.distributions.Independent) or hasattr(law, "law"):
        law = law.law if hasattr(law, "law") else law.base_dist
    return law


def _score(law: Any, noise: Tensor) -> Tensor:
    """The logistic score of a noise: log distribution function minus log survival."""
    z = noise.double()
    if isinstance(law, StandardLogistic):
        return z
    if isinstance(law, torch.distributions.Normal):
        # by hand: vmap loops over torch.special.log_ndtr, a hundred times slower
        x = z.abs() / math.sqrt(2.0)
        below = torch.log(0.5 * torch.special.erfcx(x)) - x * x
        return torch.sign(z) * (torch.log1p(-0.5 * torch.erfc(x)) - below)
    u = law.cdf(z)
    return torch.log(u) - torch.log1p(-u)


def _noise(law: Any, score: Tensor) -> Tensor:
    if isinstance(law, StandardLogistic):
        return score
    if isinstance(law, torch.distributions.Normal):
        tail = torch.special.ndtri(torch.sigmoid(-score.abs()))
        tail = torch.where(score.abs() > _FAR, -_far_quantile(score.abs().clamp(min=_FAR)), tail)
        return torch.where(score < 0, tail, -tail)
    return law.icdf(torch.sigmoid(score))  # type: ignore[no-any-return]


def _far_quantile(hazard: Tensor) -> Tensor:
    """The ``z`` at which a standard normal's survival is ``exp(-hazard)``, where that is no number: Newton's method on logs."""
    z = torch.sqrt(2 * hazard)
    for _ in range(4):
        tail = torch.special.erfcx(z / math.sqrt(2.0))
        excess = hazard + torch.log(0.5 * tail) - 0.5 * z * z
        z = z + excess * math.sqrt(0.5 * math.pi) * tail
    return z


def _bounds(fn: Any) -> tuple[Tensor, Tensor]:
    """Ends of the range of a law, through its transforms: the support that torch states may be wider."""
    while isinstance(fn, torch.distributions.Independent | ExpandedDistribution):
        fn = fn.base_dist
    # a named family, such as HalfCauchy, states its own support rightly
    if type(fn) in (torch.distributions.TransformedDistribution, dist.TransformedDistribution):
        ends = torch.stack(torch.broadcast_tensors(*_bounds(fn.base_dist)))
        for transform in fn.transforms:
            ends = transform(ends)
        return ends.amin(0), ends.amax(0)
    support = fn.support
    found = (
        torch.as_tensor(getattr(support, name, end), dtype=torch.get_default_dtype())
        for name, end in (("lower_bound", -torch.inf), ("upper_bound", torch.inf))
    )
    return tuple(found)  # type: ignore[return-value]


def constant_bounds(law: Any) -> tuple[float, float]:
    """Ends of the range of a law's family, infinite where they depend on its parameters."""
    while hasattr(law, "base_dist") and not hasattr(law, "transforms"):
        law = law.base_dist
    support = getattr(type(law), "support", None)
    if not isinstance(support, constraints.Constraint) or isinstance(support, property):
        return -math.inf, math.inf
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    return (
        float(low) if isinstance(low, int | float) else -math.inf,
        float(high) if isinstance(high, int | float) else math.inf,
    )


def _scores(
    mechanism: Mechanism, fn: Any, interval: tuple[Tensor, Tensor]
) -> tuple[Any, Tensor, Tensor]:
    """The noise's law, and the scores of the lower and the upper end; infinite where an end leaves the range of the law."""
    law, (lowest, highest) = _law(mechanism, fn), _bounds(elements(fn))
    half = torch.full_like(interval[0], 0.5)
    # a transform such as 1 - v makes the value fall where the noise rises
    rising = mechanism.forward(fn, _noise(law, half)) >= mechanism.forward(fn, _noise(law, -half))
    bottom = torch.where(rising, -torch.inf, torch.inf)
    scores = []
    for end in interval:
        found = _score(law, mechanism.abduct(fn, end, None))  # type: ignore[arg-type]
        found = torch.where((end <= lowest) | torch.isneginf(end), bottom, found)
        scores.append(torch.where((end >= highest) | torch.isposinf(end), -bottom, found))
    return law, torch.minimum(*scores), torch.maximum(*scores)


def log_mass(mechanism: Mechanism, fn: Any, interval: tuple[Tensor, Tensor]) -> Tensor:
    """``log P(low <= v <= high)`` of each entry, in nats, accurate in both tails."""
    _, low, high = _scores(mechanism, fn, interval)
    # in the tail where both are small: log(exp(a) - exp(b)) = a + log(1 - exp(b - a))
    flip = low > 0
    a = torch.where(flip, -softplus(low), -softplus(-high))
    b = torch.where(flip, -softplus(high), -softplus(-low))
    return torch.where(a > -torch.inf, a + log1mexp((b - a).clamp(max=0.0)), -torch.inf)


def draw_inside(
    mechanism: Mechanism, fn: Any, interval: tuple[Tensor, Tensor], noise: Tensor
) -> Tensor:
    """The value in the range whose noise is ``noise``, truncated: an increasing function of it."""
    law, low, high = _scores(mechanism, fn, interval)
    inside = _noise(law, truncated(low, high, _score(law, noise)))
    value = mechanism.forward(fn, inside.to(noise.dtype))
    return torch.minimum(torch.maximum(value, interval[0]), interval[1]).to(value.dtype)
