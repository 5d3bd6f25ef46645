"""Ordered counts by their inverse distribution function: monotone, with exactly truncated noise.

The noise is a logistic score in float64. The value is the smallest ``k`` with ``score <= c_k``, where ``c_k`` is the score of
``F(k)``; those of Poisson, binomial and negative binomial laws are scores of Gamma and Beta laws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .logistic import inside, inverse_softplus, softplus, standard_logistic, truncated
from .logits import log_odds
from .protocol import NoiseDistribution
from .registry import register_mechanism
from .special import COARSE, FINE, BetaLaw, GammaLaw, Rule

__all__ = [
    "MonotoneCount",
    "MonotoneGeometric",
    "Threshold",
    "binomial_threshold",
    "count_at",
    "score_within",
]

_STEPS = 32  # halvings of the range of counts: up to 2 ** 32
_ROOM = 1e-9  # more than the quadrature's round-off, less than any sample can see

#: ``(count, rule)`` to the score of ``F(count)`` for ``count >= 0``; the rule is one of the two of the quadrature.
Threshold = Callable[[Tensor, Rule], Tensor]


def _edge(threshold: Threshold, count: Tensor, rule: Rule = FINE) -> Tensor:
    return torch.where(count < 0, -torch.inf, threshold(count.clamp(min=0.0), rule))


@torch.no_grad()
def count_at(threshold: Threshold, score: Tensor, highest: Tensor) -> Tensor:
    """The smallest count whose threshold is at least the score, by bisection with a coarse rule and a last step with the fine one.

    Args:
        threshold: see :data:`Threshold`.
        score: logistic scores.
        highest: a number that the count does not exceed.
    """
    high = torch.ceil(highest) + 1
    low = torch.full_like(high, -1.0)
    for _ in range(_STEPS):
        middle = torch.floor((low + high) / 2)
        above = score > _edge(threshold, middle, COARSE)
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    first = (high - 2).clamp(min=-1.0)
    passed = [score > _edge(threshold, first + i) for i in range(4)]
    return first + torch.stack(torch.broadcast_tensors(*passed)).sum(0)


@torch.no_grad()
def score_within(threshold: Threshold, value: Tensor, base: Tensor) -> Tensor:
    """A logistic score truncated to the cell of a count, an increasing function of the logistic score ``base``."""
    count = value.double()
    low, high = _edge(threshold, count - 1), _edge(threshold, count)
    return inside(truncated(low, high, base), low, high, _ROOM)


@dataclass(frozen=True)
class MonotoneCount:
    """``v = F^-1(sigmoid(score))``, the count whose cell holds the score: increasing.

    Args:
        parameter: a parameter of the family, whose dtype the values have.
        threshold: ``fn`` to a :data:`Threshold`, as ``(fn, k, rule)``.
        highest: ``(fn, score)`` to a count that is at least the score's.
    """

    parameter: str
    threshold: Callable[[Any, Tensor, Rule], Tensor]
    highest: Callable[[Any, Tensor], Tensor]
    name: str = "inverse_cdf"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """Logistic(0, 1) in float64, batch shape ``fn.batch_shape``."""
        return standard_logistic(fn.batch_shape, getattr(fn, self.parameter), torch.float64)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The count."""
        count = count_at(partial(self.threshold, fn), noise, self.highest(fn, noise))
        return count.to(getattr(fn, self.parameter).dtype)

    def base(self, fn: Any) -> NoiseDistribution:
        """A logistic score, mapped into the value's cell."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """The score truncated to the value's cell."""
        return score_within(partial(self.threshold, fn), value, base)


@dataclass(frozen=True)
class MonotoneGeometric:
    """``v = floor(H / -log(1 - p))`` with cumulative hazard ``H = -log S`` of the score: failures before a success."""

    name: str = "inverse_cdf"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """Logistic(0, 1) in float64, batch shape ``fn.batch_shape``."""
        return standard_logistic(fn.batch_shape, log_odds(fn), torch.float64)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The count."""
        odds = log_odds(fn)
        return torch.floor(softplus(noise) / softplus(odds.double())).detach().to(odds.dtype)

    def base(self, fn: Any) -> NoiseDistribution:
        """A logistic score, mapped into the value's cell."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """The score truncated to the value's cell."""
        odds, count = log_odds(fn), value.double()
        hazard = softplus(odds.double())
        low = inverse_softplus(torch.where(count == 0, 0.0, count * hazard))
        high = inverse_softplus((count + 1) * hazard)
        return inside(truncated(low, high, base), low, high, torch.finfo(odds.dtype).eps)


def _poisson_threshold(fn: Any, count: Tensor, rule: Rule) -> Tensor:
    # F(k) is the probability that a Gamma(k + 1) exceeds the rate
    return -GammaLaw(count + 1).score(torch.log(fn.rate.double()), rule)


def _poisson_highest(rate: Tensor, score: Tensor) -> Tensor:
    tail = softplus(score)
    return rate + torch.sqrt(2 * rate * tail) + tail


def binomial_threshold(total: Tensor, odds: Tensor, count: Tensor, rule: Rule) -> Tensor:
    """The score of ``F(count)`` of a binomial law with this number of trials and these log odds, float64."""
    # F(k) is the probability that a Beta(k + 1, n - k) exceeds p
    left = total - count
    score = -BetaLaw(count + 1, left.clamp(min=1.0)).score(odds, rule)
    return torch.where(left <= 0, torch.inf, score)


def _waiting(shape: Tensor, odds: Tensor, count: Tensor, rule: Rule) -> Tensor:
    # successes before the shape-th failure: F(k) is the probability that a Beta(shape, k + 1) is at most that of a failure
    return BetaLaw(shape, count + 1).score(odds, rule)


def _waiting_highest(shape: Tensor, odds: Tensor, score: Tensor) -> Tensor:
    # a Poisson count whose rate is Gamma: each exceeds its own bound with half the probability
    tail = softplus(score) + 0.7
    rate = (shape + torch.sqrt(2 * shape * tail) + tail) * torch.exp(-odds)
    return rate + torch.sqrt(2 * rate * tail) + tail


_FAMILIES: dict[type, MonotoneCount] = {
    torch.distributions.Poisson: MonotoneCount(
        "rate",
        threshold=_poisson_threshold,
        highest=lambda fn, s: _poisson_highest(fn.rate.double(), s),
    ),
    torch.distributions.Binomial: MonotoneCount(
        "_param",
        threshold=lambda fn, k, rule: binomial_threshold(
            fn.total_count.double(), log_odds(fn).double(), k, rule
        ),
        highest=lambda fn, s: fn.total_count.double() + 0 * s,
    ),
    torch.distributions.NegativeBinomial: MonotoneCount(
        "_param",
        threshold=lambda fn, k, rule: _waiting(
            fn.total_count.double(), -log_odds(fn).double(), k, rule
        ),
        highest=lambda fn, s: _waiting_highest(fn.total_count.double(), -log_odds(fn).double(), s),
    ),
    dist.GammaPoisson: MonotoneCount(
        "rate",
        threshold=lambda fn, k, rule: _waiting(
            fn.concentration.double(), torch.log(fn.rate.double()), k, rule
        ),
        highest=lambda fn, s: _waiting_highest(
            fn.concentration.double(), torch.log(fn.rate.double()), s
        ),
    ),
}

for _family, _mechanism in _FAMILIES.items():
    register_mechanism(_family, _mechanism)
register_mechanism(torch.distributions.Geometric, MonotoneGeometric())
