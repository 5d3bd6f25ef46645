"""Sums of two independent noises: the soft asymmetric Laplace law, an asymmetric Laplace one plus a normal one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from . import inverse_cdf  # noqa: F401  (registers the asymmetric Laplace law)
from .logistic import softplus, standard_logistic
from .protocol import NoiseDistribution, TupleDistribution
from .registry import register_mechanism, registered

__all__ = ["LaplacePlusNormal"]

_STEPS = 6  # Newton's, for the normal quantile of a log probability


@dataclass(frozen=True)
class LaplacePlusNormal:
    """``v = a + soft_scale z`` with ``a`` the asymmetric Laplace quantile of a logistic score and ``z`` standard normal.

    Given the value, ``a - loc`` is a mixture of two truncated normals, one on each side of zero, from which abduction draws it.
    """

    name: str = "laplace_plus_normal"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """Logistic(0, 1) and standard normal, both of batch shape ``fn.batch_shape``."""
        zero = torch.zeros((), dtype=fn.loc.dtype, device=fn.loc.device)
        normal = dist.Normal(zero, zero + 1).expand(fn.batch_shape)
        return TupleDistribution(standard_logistic(fn.batch_shape, fn.loc), normal)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The sum."""
        return _LAPLACE.forward(fn, noise[0]) + fn.soft_scale * noise[1]

    def base(self, fn: Any) -> NoiseDistribution:
        """Logistic scores in float64 for the side and for the distance."""
        score = standard_logistic(fn.batch_shape, fn.loc, torch.float64)
        return TupleDistribution(score, score)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> tuple[Tensor, Tensor]:
        """The first summand from its posterior, the second one the rest."""
        with torch.no_grad():
            distance = _distance(fn, (value - fn.loc).double(), *base).to(value.dtype)
        first = fn.loc + distance
        score: Any = _LAPLACE.abduct(fn, first, None)
        return score, (value - first) / fn.soft_scale


def _distance(fn: Any, offset: Tensor, for_side: Tensor, for_size: Tensor) -> Tensor:
    soft, left, right = (scale.double() for scale in (fn.soft_scale, fn.left_scale, fn.right_scale))
    # exp(-t / R - (x - t)^2 / 2 s^2) on t > 0 is a normal about x - s^2 / R, cut off at zero; the left side mirrors it
    edges = [
        (side * offset - soft * soft / scale) / soft for side, scale in ((1, right), (-1, left))
    ]
    masses = [
        _log_ndtr(edge) + 0.5 * (soft / scale).square() - side * offset / scale
        for edge, (side, scale) in zip(edges, ((1, right), (-1, left)), strict=True)
    ]
    above = for_side > masses[1] - masses[0]
    edge = torch.where(above, edges[0], edges[1])
    size = soft * (edge + _upper_quantile(_log_ndtr(edge) - softplus(for_size)))
    return torch.where(above, size.clamp(min=0.0), -size.clamp(min=0.0))


def _log_ndtr(x: Tensor) -> Tensor:
    """The log of the normal distribution function; torch's own has no batching rule under ``vmap``."""
    scaled = -x / math.sqrt(2.0)
    far = torch.log(0.5 * torch.special.erfcx(scaled.clamp(min=-1.0))) - 0.5 * x * x
    return torch.where(scaled > -1.0, far, torch.log1p(-0.5 * torch.erfc(-scaled)))


def _upper_quantile(log_tail: Tensor) -> Tensor:
    """The ``q`` with ``log P(z > q) = log_tail``."""
    near = -torch.special.ndtri(torch.exp(log_tail.clamp(min=-600.0)))
    q = torch.where(log_tail > -600.0, near, torch.sqrt(-2 * log_tail))
    for _ in range(_STEPS):
        found = _log_ndtr(-q)
        hazard = torch.exp(-0.5 * q * q - 0.5 * math.log(2 * math.pi) - found)
        q = q + (found - log_tail) / hazard
    return q


_LAPLACE = registered(dist.AsymmetricLaplace)["inverse_cdf"]
register_mechanism(dist.SoftAsymmetricLaplace, LaplacePlusNormal())
