"""Continuous families by their inverse distribution function in closed form, increasing in the noise.

The noise is a logistic score (see :mod:`~causalppl.mechanisms.logistic`). Most families are written by their cumulative hazard
``H = -log S = softplus(score)``, which is accurate in both tails.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .logistic import inverse_softplus, log1mexp, softplus, standard_logistic
from .logits import log_odds
from .protocol import NoiseDistribution
from .registry import register_mechanism

__all__ = ["InverseCDF", "general_pareto_hazard"]


@dataclass(frozen=True)
class InverseCDF:
    """``v = F^-1(sigmoid(score))`` in closed form, increasing.

    A family is a pair of functions.

    Args:
        parameter: a parameter of the family, whose dtype and device the noise has.
        score: ``(fn, value)`` to ``log F - log S``.
        value: ``(fn, score)`` to the value; the inverse of ``score``.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> fn = dist.Exponential(torch.tensor(2.0))
        >>> mechanism = _FAMILIES[torch.distributions.Exponential]
        >>> mechanism.forward(fn, mechanism.abduct(fn, torch.tensor(18.0), None))
        tensor(18.)
    """

    parameter: str
    score: Callable[[Any, Tensor], Tensor]
    value: Callable[[Any, Tensor], Tensor]
    name: str = "inverse_cdf"
    invertible: bool = True

    def noise(self, fn: Any) -> NoiseDistribution:
        """Logistic(0, 1), batch shape ``fn.batch_shape``."""
        return standard_logistic(fn.batch_shape, getattr(fn, self.parameter))

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The quantile at the score."""
        return self.value(fn, noise)

    def base(self, fn: Any) -> NoiseDistribution:
        """Not needed: the noise is a function of value and parents."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """The score of the value."""
        return self.score(fn, value)


def _by_hazard(
    parameter: str, hazard: Callable[[Any, Tensor], Tensor], value: Callable[[Any, Tensor], Tensor]
) -> InverseCDF:
    """A family from its cumulative hazard ``-log S(v)`` and the inverse of that."""
    return InverseCDF(
        parameter,
        score=lambda fn, v: inverse_softplus(hazard(fn, v)),
        value=lambda fn, s: value(fn, softplus(s)),
    )


def _uniform_value(fn: Any, score: Tensor) -> Tensor:
    width = fn.high - fn.low
    from_low = fn.low + width * torch.sigmoid(score)
    return torch.where(score < 0, from_low, fn.high - width * torch.sigmoid(-score))


def _half_normal_score(z: Tensor) -> Tensor:
    # F = erf(z), S = erfc(z) = erfcx(z) exp(-z^2) with z = v / (scale sqrt 2)
    return torch.log(torch.erf(z)) - torch.log(torch.special.erfcx(z)) + z * z


def _half_normal_root(score: Tensor) -> Tensor:
    """The ``z`` of a score: a close guess without gradients, then Newton steps, the last of which carries them."""
    score = score.clamp(min=math.log(torch.finfo(score.dtype).tiny))
    with torch.no_grad():
        hazard = softplus(score)
        far = hazard.clamp(min=10.0)
        far = torch.sqrt(far - 0.5 * torch.log(math.pi * far))
        near = -torch.special.ndtri(0.5 * torch.exp(-hazard.clamp(max=60.0))) / math.sqrt(2.0)
        root = torch.where(hazard > 60.0, far, near)
        root = torch.where(score < 0, torch.erfinv(torch.sigmoid(score)), root)
        slope = 2 / math.sqrt(math.pi) / (torch.special.erfcx(root) * torch.erf(root))
        root = root + (score - _half_normal_score(root)) / slope
        slope = 2 / math.sqrt(math.pi) / (torch.special.erfcx(root) * torch.erf(root))
        step = _half_normal_score(root)
    return root + (score - step) / slope


def _half_cauchy_value(fn: Any, score: Tensor) -> Tensor:
    # F = 2/pi atan(z), S = 2/pi atan(1/z): the halves mirror each other
    below = torch.tan(0.5 * math.pi * torch.sigmoid(-score.abs()))
    return fn.scale * torch.where(score > 0, 1 / below, below)  # type: ignore[no-any-return]


def _pareto_shape(fn: Any) -> tuple[Tensor, Tensor]:
    # concentration 0 is the exponential law, a limit that the formula divides by
    flat = fn.concentration.abs() < 1e-7
    return flat, torch.where(flat, 1.0, fn.concentration)


def general_pareto_hazard(fn: Any, value: Tensor) -> Tensor:
    """``-log S(value)`` of a generalised Pareto law, whatever the dtype."""
    flat, shape = _pareto_shape(fn)
    z = (value - fn.loc) / fn.scale
    return torch.where(flat, z, torch.log1p(shape * z) / shape)


def _general_pareto_value(fn: Any, hazard: Tensor) -> Tensor:
    flat, shape = _pareto_shape(fn)
    z = torch.where(flat, hazard, torch.expm1(shape * hazard) / shape)
    return fn.loc + fn.scale * z  # type: ignore[no-any-return]


def _asymmetric_laplace_score(fn: Any, value: Tensor) -> Tensor:
    z, total = value - fn.loc, fn.left_scale + fn.right_scale
    below, side = z < 0, torch.where(z < 0, fn.left_scale, fn.right_scale)
    log_tail = torch.log(side / total) - z.abs() / side
    score = log1mexp(log_tail) - log_tail
    return torch.where(below, -score, score)


def _asymmetric_laplace_value(fn: Any, score: Tensor) -> Tensor:
    total = fn.left_scale + fn.right_scale
    below = score < torch.log(fn.left_scale / fn.right_scale)
    side = torch.where(below, fn.left_scale, fn.right_scale)
    distance = side * (torch.log(side / total) + softplus(torch.where(below, -score, score)))
    return fn.loc + torch.where(below, -distance, distance)  # type: ignore[no-any-return]


def _skew_logistic_score(fn: Any, value: Tensor) -> Tensor:
    log_cdf = -fn.asymmetry * softplus((fn.loc - value) / fn.scale)
    return log_cdf - log1mexp(log_cdf)  # type: ignore[no-any-return]


def _skew_logistic_value(fn: Any, score: Tensor) -> Tensor:
    return fn.loc - fn.scale * inverse_softplus(softplus(-score) / fn.asymmetry)  # type: ignore[no-any-return]


def _tilt(fn: Any) -> Tensor:
    # the density is exp(tilt x) up to a constant; the formulas divide by it, and are accurate however small it is
    tilt = log_odds(fn)
    return torch.where(tilt.abs() < 1e-12, 1e-12, tilt)


def _continuous_bernoulli_score(fn: Any, value: Tensor) -> Tensor:
    tilt = _tilt(fn)
    below, above = torch.expm1(tilt * value) / tilt, -torch.expm1(-tilt * (1 - value)) / tilt
    return torch.log(below) - torch.log(above) - tilt


def _continuous_bernoulli_value(fn: Any, score: Tensor) -> Tensor:
    tilt = _tilt(fn)
    from_zero = torch.log1p(torch.sigmoid(score) * torch.expm1(tilt)) / tilt
    from_one = -torch.log1p(torch.sigmoid(-score) * torch.expm1(-tilt)) / tilt
    return torch.where(score < 0, from_zero, 1 - from_one)


_FAMILIES: dict[type, InverseCDF] = {
    torch.distributions.Exponential: _by_hazard(
        "rate", hazard=lambda fn, v: fn.rate * v, value=lambda fn, h: h / fn.rate
    ),
    torch.distributions.Weibull: _by_hazard(
        "scale",
        hazard=lambda fn, v: (v / fn.scale) ** fn.concentration,
        value=lambda fn, h: fn.scale * h ** (1 / fn.concentration),
    ),
    torch.distributions.Pareto: _by_hazard(
        "scale",
        hazard=lambda fn, v: fn.alpha * torch.log(v / fn.scale),
        value=lambda fn, h: fn.scale * torch.exp(h / fn.alpha),
    ),
    torch.distributions.Kumaraswamy: _by_hazard(
        "concentration0",
        hazard=lambda fn, v: -fn.concentration0 * log1mexp(fn.concentration1 * torch.log(v)),
        value=lambda fn, h: torch.exp(log1mexp(-h / fn.concentration0) / fn.concentration1),
    ),
    torch.distributions.Uniform: InverseCDF(
        "low",
        score=lambda fn, v: torch.log(v - fn.low) - torch.log(fn.high - v),
        value=_uniform_value,
    ),
    torch.distributions.HalfNormal: InverseCDF(
        "scale",
        score=lambda fn, v: _half_normal_score(v / (fn.scale * math.sqrt(2.0))),
        value=lambda fn, s: fn.scale * math.sqrt(2.0) * _half_normal_root(s),
    ),
    dist.AsymmetricLaplace: InverseCDF(
        "loc", score=_asymmetric_laplace_score, value=_asymmetric_laplace_value
    ),
    dist.SkewLogistic: InverseCDF("loc", score=_skew_logistic_score, value=_skew_logistic_value),
    torch.distributions.ContinuousBernoulli: InverseCDF(
        "_param", score=_continuous_bernoulli_score, value=_continuous_bernoulli_value
    ),
    torch.distributions.HalfCauchy: InverseCDF(
        "scale",
        score=lambda fn, v: (
            torch.log(torch.atan2(v, fn.scale)) - torch.log(torch.atan2(fn.scale, v))
        ),
        value=_half_cauchy_value,
    ),
}

if hasattr(torch.distributions, "GeneralizedPareto"):  # younger than the oldest torch allowed
    _FAMILIES[torch.distributions.GeneralizedPareto] = _by_hazard(
        "scale", hazard=general_pareto_hazard, value=_general_pareto_value
    )

for _family, _mechanism in _FAMILIES.items():
    register_mechanism(_family, _mechanism)
