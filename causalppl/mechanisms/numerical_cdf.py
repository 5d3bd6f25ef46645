"""Continuous families whose distribution function is inverted numerically, differentiable in the parameters.

The noise is a logistic score in float64, whatever the dtype of the parameters: with small shape parameters the values spread
over many orders of magnitude.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .logistic import standard_logistic
from .protocol import NoiseDistribution
from .registry import register_mechanism
from .special import BetaLaw, GammaLaw, LogConcaveLaw, StudentLaw

__all__ = ["NumericalCDF"]


@dataclass(frozen=True)
class NumericalCDF:
    """``v = F^-1(sigmoid(score))`` by Newton's method, increasing.

    A family is a law and a change of coordinate.

    Args:
        parameter: a parameter of the family, whose dtype the values have and whose device the noise has.
        law: ``fn`` to the law of the coordinate ``z``.
        coordinate: ``(fn, value)`` to ``z``; the value is float64.
        value: ``(fn, z)`` to the value.
    """

    parameter: str
    law: Callable[[Any], LogConcaveLaw]
    coordinate: Callable[[Any, Tensor], Tensor]
    value: Callable[[Any, Tensor], Tensor]
    name: str = "inverse_cdf"
    invertible: bool = True

    def noise(self, fn: Any) -> NoiseDistribution:
        """Logistic(0, 1) in float64, batch shape ``fn.batch_shape``."""
        return standard_logistic(fn.batch_shape, getattr(fn, self.parameter), torch.float64)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The quantile at the score."""
        return self.value(fn, self.law(fn).point(noise)).to(getattr(fn, self.parameter).dtype)

    def base(self, fn: Any) -> NoiseDistribution:
        """Not needed: the noise is a function of value and parents."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """The score of the value."""
        return self.law(fn).score(self.coordinate(fn, value.double()))


def _log(value: Tensor, like: Tensor) -> Tensor:
    return torch.log(value.clamp(min=torch.finfo(like.dtype).tiny))


def _positive(value: Tensor, like: Tensor) -> Tensor:
    # as torch's own sampler: never 0, which has no logarithm
    return value.clamp(min=torch.finfo(like.dtype).tiny)


def _logit(value: Tensor, like: Tensor) -> Tensor:
    limits = torch.finfo(like.dtype)
    return torch.logit(value.clamp(min=limits.tiny, max=1 - limits.eps / 4))


def _student_unit(fn: Any) -> Tensor:
    return fn.scale.double() * torch.sqrt(fn.df.double())  # type: ignore[no-any-return]


_FAMILIES: dict[type, NumericalCDF] = {
    torch.distributions.Gamma: NumericalCDF(
        "rate",
        law=lambda fn: GammaLaw(fn.concentration.double()),
        coordinate=lambda fn, v: _log(v * fn.rate.double(), fn.rate),
        value=lambda fn, z: _positive(torch.exp(z) / fn.rate.double(), fn.rate),
    ),
    torch.distributions.Beta: NumericalCDF(
        "concentration1",
        law=lambda fn: BetaLaw(fn.concentration1.double(), fn.concentration0.double()),
        coordinate=lambda fn, v: _logit(v, fn.concentration1),
        value=lambda fn, z: _positive(torch.sigmoid(z), fn.concentration1),
    ),
    torch.distributions.StudentT: NumericalCDF(
        "scale",
        law=lambda fn: StudentLaw(fn.df.double()),
        coordinate=lambda fn, v: torch.asinh((v - fn.loc.double()) / _student_unit(fn)),
        value=lambda fn, z: fn.loc.double() + _student_unit(fn) * torch.sinh(z),
    ),
    torch.distributions.FisherSnedecor: NumericalCDF(
        "df1",
        law=lambda fn: BetaLaw(fn.df1.double() / 2, fn.df2.double() / 2),
        coordinate=lambda fn, v: _log(v * fn.df1.double() / fn.df2.double(), fn.df1),
        value=lambda fn, z: _positive(torch.exp(z) * fn.df2.double() / fn.df1.double(), fn.df1),
    ),
}

for _family, _mechanism in _FAMILIES.items():
    register_mechanism(_family, _mechanism)
