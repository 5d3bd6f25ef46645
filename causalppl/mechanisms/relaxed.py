"""Relaxed discrete families: ``v = (logits + noise) / temperature``, normalised where there are several categories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .inverse_cdf import InverseCDF
from .logistic import standard_logistic
from .logits import category_logits, log_odds
from .protocol import NoiseDistribution
from .registry import register_mechanism
from .special import GammaLaw

__all__ = ["RelaxedGumbels"]


@dataclass(frozen=True)
class RelaxedGumbels:
    """``v = log softmax((log p + g) / temperature)`` with standard Gumbel noise ``g``.

    A common shift of the Gumbels is lost in the normalisation. Given the value, ``exp(-shift)`` is Gamma distributed with as
    many degrees as there are categories, from which abduction draws it.

    References:
        C. Maddison, A. Mnih, Y. W. Teh (2017), The Concrete Distribution.
    """

    name: str = "gumbel_softmax"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """Gumbel(0, 1), shape ``batch_shape + event_shape``."""
        logits = category_logits(fn)
        zero = torch.zeros((), dtype=logits.dtype, device=logits.device)
        return dist.Gumbel(zero, zero + 1).expand(fn.batch_shape + fn.event_shape)  # type: ignore[no-any-return]

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The log of a point of the simplex."""
        return torch.log_softmax((category_logits(fn) + noise) / fn.temperature, -1)

    def base(self, fn: Any) -> NoiseDistribution:
        """A logistic score for the shift."""
        return standard_logistic(fn.batch_shape, category_logits(fn), torch.float64)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """The Gumbels up to a shift, and the shift."""
        up_to_shift = value * fn.temperature - category_logits(fn)
        degrees = torch.full(
            (), float(fn.event_shape[-1]), dtype=torch.float64, device=value.device
        )
        log_gamma = GammaLaw(degrees).point(base).to(value.dtype)
        shift = torch.logsumexp(-up_to_shift, -1) - log_gamma
        return up_to_shift + shift.unsqueeze(-1)


register_mechanism(torch.distributions.relaxed_categorical.ExpRelaxedCategorical, RelaxedGumbels())
register_mechanism(
    torch.distributions.relaxed_bernoulli.LogitRelaxedBernoulli,
    InverseCDF(
        "_param",
        score=lambda fn, v: v * fn.temperature - log_odds(fn),
        value=lambda fn, s: (s + log_odds(fn)) / fn.temperature,
    ),
)
