"""Continuous families by their inverse distribution function in closed form.

The noise is kept as a standard logistic score ``s = log F(v) - log S(v)``, with distribution function F and survival S, so that
both tails survive in float32, where a uniform score would round to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import softplus

from .protocol import NoiseDistribution
from .registry import register_mechanism

__all__ = ["InverseCDF", "log1mexp", "standard_logistic"]


def log1mexp(x: Tensor) -> Tensor:
    """``log(1 - exp(x))`` for ``x <= 0``, accurate at both ends, with finite gradients."""
    small = x > -math.log(2.0)
    near = torch.where(small, x, x.new_full((), -1.0))
    far = torch.where(small, x.new_full((), -1.0), x)
    return torch.where(small, torch.log(-torch.expm1(near)), torch.log1p(-torch.exp(far)))


def standard_logistic(shape: torch.Size, like: Tensor) -> NoiseDistribution:
    """The law of a logistic score."""
    zero = torch.zeros((), dtype=like.dtype, device=like.device)
    return dist.Logistic(zero, zero + 1).expand(shape)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class InverseCDF:
    """``v = F^-1(sigmoid(score))``, increasing; a family is a pair of functions.

    Args:
        score: ``(fn, value)`` to ``log F - log S``.
        value: ``(fn, score)`` to the value.
        like: a parameter of ``fn``, for dtype and device.
    """

    score: Callable[[Any, Tensor], Tensor]
    value: Callable[[Any, Tensor], Tensor]
    like: Callable[[Any], Tensor]
    name: str = "inverse_cdf"
    invertible: bool = True

    def noise(self, fn: Any) -> NoiseDistribution:
        """Logistic(0, 1), batch shape ``fn.batch_shape``."""
        return standard_logistic(fn.batch_shape, self.like(fn))

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The quantile at the score."""
        return self.value(fn, noise)

    def base(self, fn: Any) -> NoiseDistribution:
        """Not needed."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """The score of the value."""
        return self.score(fn, value)


def _score_from_log_survival(log_survival: Tensor) -> Tensor:
    return log1mexp(log_survival) - log_survival


def _halfnormal_value(fn: Any, score: Tensor) -> Tensor:
    # solve log(2 Phi(-z)) = log S by Newton in z >= 0; the function is concave, so steps converge
    target = (-softplus(score) - math.log(2.0)).to(torch.float64)
    with torch.no_grad():
        z = torch.sqrt(torch.clamp(-2.0 * (target + math.log(2.0)), min=0.0))
        for _ in range(12):
            z = z - _halfnormal_step(z, target)
    z = z.detach() - _halfnormal_step(z.detach(), target)
    # where the value is tiny, log S ~ -2 phi(0) z resolves it better than Newton's difference
    small = torch.sigmoid(score.double()) < 1e-4
    linear = torch.sigmoid(score.double()) * math.sqrt(math.pi / 2)
    return fn.scale * torch.where(small, linear * (1 + linear**2 / 6), z).to(score.dtype)


def _halfnormal_step(z: Tensor, target: Tensor) -> Tensor:
    log_tail = torch.special.log_ndtr(-z)
    slope = -torch.exp(-0.5 * z * z - 0.5 * math.log(2 * math.pi) - log_tail)
    return (log_tail - target) / slope


def _halfnormal_score(fn: Any, value: Tensor) -> Tensor:
    z = (value / fn.scale).double()
    log_survival = torch.special.log_ndtr(-z) + math.log(2.0)
    log_cdf = torch.log(torch.erf(z / math.sqrt(2.0)))
    return torch.where(z < 1.0, log_cdf, log1mexp(log_survival.clamp(max=-1e-300))).sub(log_survival).to(value.dtype)


def _halfcauchy_value(fn: Any, score: Tensor) -> Tensor:
    small = torch.tan(math.pi / 2 * torch.sigmoid(-score.abs()))
    return fn.scale * torch.where(score > 0, 1 / small, small)  # type: ignore[no-any-return]


register_mechanism(
    torch.distributions.Exponential,
    InverseCDF(
        score=lambda fn, v: _score_from_log_survival(-fn.rate * v),
        value=lambda fn, s: softplus(s) / fn.rate,
        like=lambda fn: fn.rate,
    ),
)
register_mechanism(
    torch.distributions.Uniform,
    InverseCDF(
        score=lambda fn, v: torch.log(v - fn.low) - torch.log(fn.high - v),
        value=lambda fn, s: torch.where(
            s < 0,
            fn.low + (fn.high - fn.low) * torch.sigmoid(s),
            fn.high - (fn.high - fn.low) * torch.sigmoid(-s),
        ),
        like=lambda fn: fn.low,
    ),
)
register_mechanism(
    torch.distributions.Weibull,
    InverseCDF(
        score=lambda fn, v: _score_from_log_survival(-((v / fn.scale) ** fn.concentration)),
        value=lambda fn, s: fn.scale * softplus(s) ** (1 / fn.concentration),
        like=lambda fn: fn.scale,
    ),
)
register_mechanism(
    torch.distributions.Pareto,
    InverseCDF(
        score=lambda fn, v: _score_from_log_survival(-fn.alpha * torch.log(v / fn.scale)),
        value=lambda fn, s: fn.scale * torch.exp(softplus(s) / fn.alpha),
        like=lambda fn: fn.scale,
    ),
)
register_mechanism(
    torch.distributions.Kumaraswamy,
    InverseCDF(
        score=lambda fn, v: _score_from_log_survival(
            fn.concentration0 * log1mexp(fn.concentration1 * torch.log(v))
        ),
        value=lambda fn, s: torch.exp(log1mexp(-softplus(s) / fn.concentration0) / fn.concentration1),
        like=lambda fn: fn.concentration0,
    ),
)
register_mechanism(
    torch.distributions.HalfNormal,
    InverseCDF(score=_halfnormal_score, value=_halfnormal_value, like=lambda fn: fn.scale),
)
register_mechanism(
    torch.distributions.HalfCauchy,
    InverseCDF(
        score=lambda fn, v: torch.log(torch.atan(v / fn.scale)) - torch.log(torch.atan(fn.scale / v)),
        value=_halfcauchy_value,
        like=lambda fn: fn.scale,
    ),
)

