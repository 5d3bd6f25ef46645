"""Dirichlet: independent Gammas, normalised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .logistic import standard_logistic
from .protocol import NoiseDistribution
from .registry import register_mechanism
from .special import GammaLaw

__all__ = ["NormalisedGammas"]


@dataclass(frozen=True)
class NormalisedGammas:
    """``v = g / sum(g)`` with ``g_k`` the Gamma(``concentration_k``) quantile of an independent logistic score.

    The sum is lost in the normalisation and independent of the value, so abduction draws it from its own Gamma law.
    """

    name: str = "normalised_gammas"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """Logistic(0, 1) in float64, shape ``batch_shape + event_shape``."""
        return standard_logistic(fn.batch_shape + fn.event_shape, fn.concentration, torch.float64)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """A point of the simplex."""
        log_gammas = GammaLaw(fn.concentration.double()).point(noise)
        return torch.softmax(log_gammas, -1).to(fn.concentration.dtype)

    def base(self, fn: Any) -> NoiseDistribution:
        """A logistic score for the sum of the Gammas."""
        return standard_logistic(fn.batch_shape, fn.concentration, torch.float64)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """The scores of the Gammas, their sum drawn."""
        concentration = fn.concentration.double()
        log_sum = GammaLaw(concentration.sum(-1)).point(base)
        tiny = torch.finfo(fn.concentration.dtype).tiny
        log_gammas = torch.log(value.double().clamp(min=tiny)) + log_sum.unsqueeze(-1)
        return GammaLaw(concentration).score(log_gammas)


register_mechanism(torch.distributions.Dirichlet, NormalisedGammas())
