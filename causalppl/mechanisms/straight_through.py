"""Straight-through families: discrete values whose derivatives are those of a relaxation.

Pyro's densities of these families are those of the value before rounding. What a program sees is the rounded value, and that is
what these mechanisms give and abduct: Bernoulli by its inverse distribution function, categories by Gumbel-max.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .discrete import GumbelMax, MonotoneBernoulli
from .logits import category_logits, log_odds
from .protocol import Mechanism, NoiseDistribution
from .registry import register_mechanism

__all__ = ["StraightThrough"]


@dataclass(frozen=True)
class StraightThrough:
    """``v = f(noise)`` with ``f`` the discrete family's mechanism and the derivatives of the relaxed value.

    Args:
        hard: the discrete family's mechanism.
        discrete: ``fn`` to the distribution that it is given.
        soft: ``(fn, noise)`` to the relaxed value.

    References:
        Y. Bengio, N. Léonard, A. Courville (2013), Estimating or propagating gradients through stochastic neurons.
    """

    hard: Mechanism
    discrete: Any
    soft: Any
    invertible: bool = False

    @property
    def name(self) -> str:
        """The discrete family's."""
        return self.hard.name

    def noise(self, fn: Any) -> NoiseDistribution:
        """The discrete family's noise."""
        return self.hard.noise(self.discrete(fn))

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The discrete value; the difference that carries the derivatives is exactly zero."""
        soft = self.soft(fn, noise)
        return self.hard.forward(self.discrete(fn), noise).to(soft.dtype) + (soft - soft.detach())  # type: ignore[no-any-return]

    def base(self, fn: Any) -> NoiseDistribution:
        """The discrete family's."""
        return self.hard.base(self.discrete(fn))

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Any:
        """The discrete family's noise."""
        return self.hard.abduct(self.discrete(fn), value, base)


def _itself(fn: Any) -> Any:
    return fn


def _bernoulli(fn: Any) -> Any:
    return dist.Bernoulli(logits=log_odds(_underlying(fn)), validate_args=False)


def _categorical(fn: Any) -> Any:
    return dist.OneHotCategorical(logits=category_logits(_underlying(fn)), validate_args=False)


def _underlying(fn: Any) -> Any:
    return fn.base_dist


register_mechanism(
    dist.RelaxedBernoulliStraightThrough,
    StraightThrough(
        MonotoneBernoulli(),
        _bernoulli,
        lambda fn, noise: torch.sigmoid(
            (noise + log_odds(_underlying(fn))) / _underlying(fn).temperature
        ),
    ),
)
register_mechanism(
    dist.RelaxedOneHotCategoricalStraightThrough,
    StraightThrough(
        GumbelMax(one_hot=True),
        _categorical,
        lambda fn, noise: torch.softmax(
            (noise + category_logits(_underlying(fn))) / _underlying(fn).temperature, -1
        ),
    ),
)
register_mechanism(
    torch.distributions.OneHotCategoricalStraightThrough,
    StraightThrough(GumbelMax(one_hot=True), _itself, lambda fn, noise: fn.probs),
)
