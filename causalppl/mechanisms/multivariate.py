"""Multivariate normals and Student's t: ``v = loc + L noise`` with the Cholesky factor, triangular in coordinate order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .logistic import standard_logistic
from .protocol import NoiseDistribution, TupleDistribution
from .registry import register_mechanism
from .special import GammaLaw

__all__ = ["Cholesky", "CholeskyStudent"]


@dataclass(frozen=True)
class Cholesky:
    """``v = loc + L noise`` with ``L L' = covariance``: earlier coordinates may drive later ones, not the reverse.

    The coordinate order is an assumption about the mechanism, as every coupling is.
    """

    name: str = "cholesky"
    invertible: bool = True

    def noise(self, fn: Any) -> NoiseDistribution:
        """Standard normal, shape ``batch_shape + event_shape``."""
        zero = torch.zeros((), dtype=fn.loc.dtype, device=fn.loc.device)
        shape = fn.batch_shape + fn.event_shape
        return dist.Normal(zero, zero + 1).expand(shape)  # type: ignore[no-any-return]

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """``loc + L noise``."""
        return fn.loc + (fn.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)  # type: ignore[no-any-return]

    def base(self, fn: Any) -> NoiseDistribution:
        """Not needed: the noise is a function of value and parents."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """``L^-1 (value - loc)``."""
        centred = (value - fn.loc).unsqueeze(-1)
        return torch.linalg.solve_triangular(fn.scale_tril, centred, upper=False).squeeze(-1)


@dataclass(frozen=True)
class CholeskyStudent:
    """``v = loc + L z sqrt(df / w)`` with ``z`` standard normal and ``w`` chi-squared.

    The noise is the pair of ``z`` and the logistic score of ``w``. Given the value, ``w`` is Gamma((df + d) / 2, (1 + y'y / df) / 2)
    with ``y = L^-1 (v - loc)`` of dimension ``d``, from which abduction draws it.
    """

    name: str = "cholesky"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """Standard normal of shape ``batch_shape + event_shape``, and Logistic(0, 1) in float64 of shape ``batch_shape``."""
        score = standard_logistic(fn.batch_shape, fn.loc, torch.float64)
        return TupleDistribution(Cholesky().noise(fn), score)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """See the class."""
        df = fn.df.double()
        log_share = GammaLaw(df / 2).point(noise[1]) - torch.log(df / 2)
        stretch = torch.exp(-0.5 * log_share).to(fn.loc.dtype)
        return Cholesky().forward(fn, noise[0] * stretch.unsqueeze(-1))

    def base(self, fn: Any) -> NoiseDistribution:
        """A logistic score for ``w``."""
        return standard_logistic(fn.batch_shape, fn.loc, torch.float64)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> tuple[Tensor, Tensor]:
        """``w`` from its posterior, then both noises."""
        df, unit = fn.df.double(), Cholesky().abduct(fn, value, None)
        shape = (df + fn.event_shape[-1]) / 2
        log_half = GammaLaw(shape).point(base) - torch.log1p(unit.double().square().sum(-1) / df)
        stretch = torch.exp(0.5 * (log_half - torch.log(df / 2))).to(unit.dtype)
        return unit * stretch.unsqueeze(-1), GammaLaw(df / 2).score(log_half)


register_mechanism(torch.distributions.MultivariateNormal, Cholesky())
register_mechanism(torch.distributions.LowRankMultivariateNormal, Cholesky())
register_mechanism(dist.MultivariateStudentT, CholeskyStudent())
