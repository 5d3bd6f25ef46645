"""Location-scale families: ``v = loc + scale * noise``, increasing in the noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .protocol import NoiseDistribution
from .registry import register_mechanism

__all__ = ["LOCATION_SCALE", "Affine"]

#: The families: the class whose parameters are ``loc`` and ``scale``, and the one that its noise is drawn from.
LOCATION_SCALE: dict[type, Callable[..., Any]] = {
    torch.distributions.Normal: dist.Normal,
    torch.distributions.Laplace: dist.Laplace,
    torch.distributions.Cauchy: dist.Cauchy,
    torch.distributions.Gumbel: dist.Gumbel,
    dist.Logistic: dist.Logistic,
    dist.SoftLaplace: dist.SoftLaplace,
}


@dataclass(frozen=True)
class Affine:
    r"""``v = loc + scale * noise``; the noise has the family's standard law.

    Args:
        standard: the family's class; ``standard(0, 1)`` is the law of the noise.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> fn = dist.Normal(torch.tensor(2.0), torch.tensor(3.0))
        >>> Affine(dist.Normal).forward(fn, torch.tensor(1.0))
        tensor(5.)
    """

    standard: Callable[..., Any]
    name: str = "affine"
    invertible: bool = True

    def noise(self, fn: Any) -> NoiseDistribution:
        """The standard member of the family, batch shape ``fn.batch_shape``."""
        zero = torch.zeros((), dtype=fn.loc.dtype, device=fn.loc.device)
        return self.standard(zero, zero + 1).expand(fn.batch_shape)  # type: ignore[no-any-return]

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """``loc + scale * noise``, in one kernel."""
        return torch.addcmul(fn.loc, fn.scale, noise)

    def base(self, fn: Any) -> NoiseDistribution:
        """Not needed: the noise is a function of value and parents."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """``(value - loc) / scale``."""
        return (value - fn.loc) / fn.scale  # type: ignore[no-any-return]


for _family, _standard in LOCATION_SCALE.items():
    register_mechanism(_family, Affine(_standard))
