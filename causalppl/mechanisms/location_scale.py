"""Location-scale families: ``v = loc + scale * noise``, increasing in the noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .protocol import NoiseDistribution
from .registry import register_mechanism

__all__ = ["Affine"]


@dataclass(frozen=True)
class Affine:
    r"""``v = loc + scale * noise``; the noise has the family's standard law."""

    name: str = "affine"
    invertible: bool = True

    def noise(self, fn: Any) -> NoiseDistribution:
        """The standard member of the family, batch shape ``fn.batch_shape``."""
        zero, one = fn.loc.new_zeros(()), fn.loc.new_ones(())
        return type(fn)(zero, one).expand(fn.batch_shape)  # type: ignore[no-any-return]

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """``loc + scale * noise``."""
        return fn.loc + fn.scale * noise  # type: ignore[no-any-return]

    def base(self, fn: Any) -> NoiseDistribution:
        """Not needed: the noise is a function of value and parents."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """``(value - loc) / scale``."""
        return (value - fn.loc) / fn.scale  # type: ignore[no-any-return]


for _family in (
    torch.distributions.Normal,
    torch.distributions.Laplace,
    torch.distributions.Cauchy,
    torch.distributions.Gumbel,
    dist.Logistic,
):
    register_mechanism(_family, Affine())
