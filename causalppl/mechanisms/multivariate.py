"""Multivariate normals: ``v = loc + L noise`` with the Cholesky factor, triangular in coordinate order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .protocol import NoiseDistribution
from .registry import register_mechanism

__all__ = ["Cholesky"]


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


register_mechanism(torch.distributions.MultivariateNormal, Cholesky())
